"""Reads files that people write (settings, lists, decisions), as a whole and up to a size limit.

Data are read by :mod:`tasks.ingest` in batches. The limit here is far above the size of any such file, and the expanded
size of YAML aliases is computed before they are expanded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tasks.core.errors import InputError

MAX_BYTES = 64 << 20
_MAX_NODES = 1_000_000


def read_document(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        OSError: It cannot be read.
        InputError: It is larger than :data:`MAX_BYTES`.
    """
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(
            str(path),
            f"more than {MAX_BYTES:,} bytes",
            f"at most {MAX_BYTES:,} in a file that is read whole",
            "Check that it is the right file; split it, or configure it as a data source.",
        )
    return data


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, with line feeds as line ends.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
        InputError: It is larger than :data:`MAX_BYTES`.
    """
    return read_document(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        json.JSONDecodeError: It is invalid, or nested too deeply for Python.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, by the safe loader.

    An alias takes a few bytes and expands to its anchor, including further aliases: a few lines can expand to more than the
    memory holds. The values are therefore counted before the expansion.

    Raises:
        yaml.YAMLError: It is invalid, nested too deeply, expands to more than a million values, or has a key twice.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > _MAX_NODES:
            raise yaml.YAMLError(f"aliases that expand to more than {_MAX_NODES:,} values")
        _check_keys(node, set())
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("a text that is nested too deeply, or refers to itself") from error
    finally:
        loader.dispose()


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values that a node expands to; ``known`` caches the number of each node."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_num_values(child, known) for child in children)
    return known[id(node)]


def _check_keys(node: yaml.Node, seen: set[int]) -> None:
    """Refuses a key that stands twice in one mapping: YAML forbids it, and PyYAML would keep the second without a word."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _check_keys(child, seen)
    elif isinstance(node, yaml.MappingNode):
        first: dict[tuple[str, str], yaml.Node] = {}
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                before = first.setdefault((key.tag, key.value), key)
                if before is not key:
                    line = before.start_mark.line + 1
                    raise yaml.MarkedYAMLError(
                        problem=f"a key that stands in line {line} of the same mapping already", problem_mark=key.start_mark
                    )
            _check_keys(value, seen)
