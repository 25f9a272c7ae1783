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
    """One planted fault: the row, the kind of fault, and its place.

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


def read_planted_faults(path: str) -> list[PlantedFault]:
    """Every fault in the file, in its order.

    Raises:
        InputError: The file is missing, empty or not UTF-8, or has invalid lines; the first five are named.
    """
    try:
        lines = read_text(Path(path)).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"truth.path {path}", type(error).__name__, "a readable UTF-8 file", "Correct the path, or remove truth.path."
        ) from error
    faults, invalid = [], []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                faults.append(PlantedFault.model_validate(parse_json(line)))
            except (json.JSONDecodeError, ValidationError) as error:
                invalid.append(f"line {number} ({_fields_of(error)})")
    if invalid or not faults:
        found = f"{len(invalid)} invalid lines: {', '.join(invalid[:_MAX_SHOWN])}" if invalid else "no lines"
        raise InputError(
            f"truth.path {path}",
            found,
            "JSON objects with at least row_id and kind",
            "examples/support_desk/generate.py writes such a file.",
        )
    return faults


def faults_in(source_uri: str, faults: Sequence[PlantedFault]) -> list[PlantedFault]:
    """The faults planted in one source: those that name its file, and those that name no file."""
    name = source_uri.rstrip("/").rsplit("/", 1)[-1]
    return [fault for fault in faults if fault.file in (None, name)]


def check_source(path: str, faults: Sequence[PlantedFault], source_uri: str) -> None:
    """Rejects a list of faults that belongs to other data files.

    Raises:
        InputError: No fault in the list is of this source.
    """
    if not faults_in(source_uri, faults):
        raise InputError(
            f"truth.path {path}",
            f"faults of {', '.join(sorted({fault.file or '' for fault in faults}))}",
            f"faults of {source_uri}",
            "Name the list that was generated with this data, or remove truth.path.",
        )


def _fields_of(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return ", ".join(sorted({str(fault["loc"][0]) if fault["loc"] else "not an object" for fault in error.errors()}))
    return "not JSON"
