"""Reads the list of planted faults that a generated data set comes with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from tasks.contracts.base import FrozenModel
from tasks.core.documents import parse_json, read_text
from tasks.core.errors import InputError

FaultKind = Literal[
    "pii",
    "secret",
    "code_name",
    "exact_duplicate",
    "near_duplicate",
    "wrong_label",
    "swapped",
    "truncated",
    "garbled",
    "malformed",
]
_MAX_SHOWN = 5


class PlantedFault(FrozenModel):
    """One planted fault: the row, what is wrong with it, and where.

    ``field`` is a path in the canonical row (None when the whole row is at fault), ``value`` what was planted there.
    ``row_id`` of a line that holds no object is ``line-<n>``; ``line`` counts from 1. ``file`` is the data file's name.
    """

    row_id: str = Field(min_length=1)
    kind: FaultKind
    field: str | None = None
    value: str | None = None
    entity: str | None = None
    correct_label: str | None = None
    duplicate_of: str | None = None
    line: int | None = Field(None, ge=1)
    file: str | None = None


def read_truth(path: str) -> list[PlantedFault]:
    """Every fault in the file, in its order.

    Raises:
        InputError: The file is missing, empty or not UTF-8, or has lines of another shape; the first five are named.
    """
    try:
        lines = read_text(Path(path)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"truth.path {path}", type(error).__name__, "a readable UTF-8 file", "Correct the path, or remove truth.path."
        ) from error
    faults, wrong = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                faults.append(PlantedFault.model_validate(parse_json(line)))
            except (json.JSONDecodeError, ValidationError) as error:
                wrong.append(f"line {number} ({_fields_of(error)})")
    if wrong or not faults:
        found = f"{len(wrong)} lines of another shape: {', '.join(wrong[:_MAX_SHOWN])}" if wrong else "no lines"
        raise InputError(
            f"truth.path {path}",
            found,
            "JSON objects with at least row_id and kind",
            "Write it as examples/support_desk/generate.py does.",
        )
    return faults


def faults_of(faults: Sequence[PlantedFault], source_uri: str) -> list[PlantedFault]:
    """The faults planted in one source: those that name its file, or none."""
    name = source_uri.rstrip("/").rsplit("/", 1)[-1]
    return [fault for fault in faults if fault.file in (None, name)]


def _fields_of(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return ", ".join(sorted({str(fault["loc"][0]) if fault["loc"] else "not an object" for fault in error.errors()}))
    return "not JSON"
