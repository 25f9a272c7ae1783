"""Files that people write and hand in (settings, lists, answers): read whole, and therefore only up to a size.

Data come through :mod:`tasks.ingest`, which reads in pieces. What is here has a ceiling far above any such file, and
formats that can say much in few bytes are measured before they are unfolded.
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
            "Check that it is the right file; split it, or give data as a source.",
        )
    return data


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark, its lines ended by line feeds.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is not UTF-8.
        InputError: It is larger than :data:`MAX_BYTES`.
    """
    return read_document(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        json.JSONDecodeError: It is none, or is nested more deeply than Python goes.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise json.JSONDecodeError("nested too deeply", "", 0) from error


def parse_yaml(text: str) -> Any:
    """The value of a YAML text, by the safe loader.

    An alias costs a few bytes and stands for all that its anchor holds, aliases included: a few lines can unfold to more
    than a memory holds. What it would unfold to is therefore counted first.

    Raises:
        yaml.YAMLError: It is none, is nested too deeply, or unfolds to more than a million values.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _num_values(node, {}) > _MAX_NODES:
            raise yaml.YAMLError(f"aliases that unfold to more than {_MAX_NODES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("a text that is nested too deeply, or refers to itself") from error
    finally:
        loader.dispose()


def _num_values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node unfolds to; each node is counted once, however often it is referred to."""
    if id(node) not in known:
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_num_values(child, known) for child in children)
    return known[id(node)]
