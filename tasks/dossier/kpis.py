"""Business figures from a file, such as satisfaction, time to resolution and escalations; scores are a proxy for them.

A CSV file with a header, or a JSON list of objects; each line is a period, perhaps of one model version::

    period,model_version,csat,hours_to_resolution,escalation_rate
    2026-Q2,3,4.1,9.5,0.12
    2026-Q3,4,4.3,8.75,

Every column but the first two is a figure. An empty cell was not measured; it is not 0.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.contracts.run import BusinessPeriod
from tasks.core.documents import parse_json, read_text
from tasks.core.errors import InputError

_PERIOD, _VERSION = "period", "model_version"
_TODO = "See docs/configuration.md, dossier.kpi_file."


def read_kpis(path: Path) -> tuple[BusinessPeriod, ...]:
    """The file's periods in its order.

    Raises:
        InputError: It cannot be read, or has faults; all of them are named.
    """
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), type(error).__name__, "a readable CSV or JSON file in UTF-8", _TODO) from error
    entries = _from_json(path, text) if path.suffix.lower() == ".json" else _from_csv(path, text)
    faults: list[str] = []
    periods = [_period(entry, number, faults) for number, entry in enumerate(entries, start=1)]
    if faults:
        raise InputError(str(path), "; ".join(faults), "a period and figures in every line", _TODO)
    if not any(period.figures for period in periods):
        raise InputError(str(path), "no figures", "one line a period, one column a figure", _TODO)
    return tuple(periods)


def _from_csv(path: Path, text: str) -> list[Mapping[str, Any]]:
    reader = csv.DictReader(text.splitlines())
    if _PERIOD not in (reader.fieldnames or ()):
        raise InputError(str(path), "no column `period`", "a header with `period` and one column a figure", _TODO)
    return list(reader)


def _from_json(path: Path, text: str) -> list[Mapping[str, Any]]:
    try:
        entries = parse_json(text)
    except ValueError as error:
        raise InputError(str(path), "text that is not JSON", "a list of objects", _TODO) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(str(path), "JSON of another shape", "a list of objects", _TODO)
    return entries


def _period(entry: Mapping[str, Any], number: int, faults: list[str]) -> BusinessPeriod:
    """One line of the file; its faults are appended to ``faults``, by number and column."""
    period, version = (str(entry.get(name) or "").strip() for name in (_PERIOD, _VERSION))
    if not period:
        faults.append(f"entry {number} has no period")
    figures: dict[str, float] = {}
    for name, value in entry.items():
        if name in (_PERIOD, _VERSION) or value is None or value == "":
            continue
        if name is None:  # the key of csv for cells after the last column
            faults.append(f"entry {number} has more cells than the header")
            continue
        figure = _number(value)
        if figure is None:
            faults.append(f"entry {number}, `{name}`: not a finite number")
        else:
            figures[name] = figure
    return BusinessPeriod(period=period, model_version=version or None, figures=figures)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:  # not a number, which the caller reports
        return None
    return number if math.isfinite(number) else None
