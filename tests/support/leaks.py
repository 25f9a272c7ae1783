"""Searches everything that a run left behind for values that must not be there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

RAW_KINDS = {"quarantine"}


def planted_values(truth: Path, kinds: Iterable[str] = ("pii", "secret", "code_name")) -> set[str]:
    """The planted values of some kinds, from a ground-truth file; those under five characters are too common to search."""
    lines = [json.loads(line) for line in truth.read_text().splitlines()]
    return {line["value"] for line in lines if line["kind"] in kinds and line.get("value") and len(line["value"]) >= 5}


def find_leaks(folder: Path, values: set[str], *, skip: Iterable[Path] = ()) -> list[str]:
    """``file: value`` for each value found in a file under ``folder`` that may not hold record text.

    Data sets are opened and searched cell by cell; raw ones (before scrubbing) and quarantine are where values belong.
    Every other file is searched as bytes: databases, logs, results, pages, manifests.
    """
    skipped = [path.resolve() for path in skip]
    leaks = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix == ".safetensors" or any(path.resolve().is_relative_to(one) for one in skipped):
            continue
        if path.suffix == ".parquet":
            leaks += [f"{path}: {value}" for value in values if value in "\n".join(_clean_cells(path))]
        else:
            data = path.read_bytes()
            leaks += [f"{path}: {value}" for value in values if value.encode() in data or _escaped(value) in data]
    return leaks


def _escaped(value: str) -> bytes:
    return json.dumps(value)[1:-1].encode()


def _clean_cells(path: Path) -> Iterator[str]:
    """All strings of a data set that must be clean."""
    table = pq.read_table(path)
    lineage = json.loads((table.schema.metadata or {}).get(b"perennial.lineage", b"{}"))
    is_raw = lineage.get("kind") in {"messages", "preferences"} and "scrubbed" not in lineage.get("passed", [])
    if is_raw or lineage.get("kind") in RAW_KINDS:
        return
    for column in table.columns:
        yield from _strings(column)


def _strings(column: pa.ChunkedArray) -> Iterator[str]:
    yield json.dumps(column.to_pylist(), ensure_ascii=False, default=str)
