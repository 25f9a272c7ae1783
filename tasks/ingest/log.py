"""A window of a production log: a line of figures for every request, and the conversations that can be read.

Figures count every request, failed ones too, which have no reply and so can be no row. A line holds no text.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from tasks.core.rows import reply
from tasks.ingest.columns import ColumnSurvey, Fields
from tasks.ingest.config import LogConfig
from tasks.ingest.formats import RowFaultError, correction_of, feedback_of, find_format, time_of, to_row
from tasks.ingest.records import Source
from tasks.ingest.snapshot import Collected, Ingested, names_of, quarantine_record
from tasks.ingest.times import TimeCheck
from tasks.ingest.window import Window
from tasks.text.refusals import is_refusal

LINES_SCHEMA = pa.schema(
    [
        ("created_at", pa.string()),
        ("feedback", pa.string()),
        ("refused", pa.bool_()),
        ("failed", pa.bool_()),
        ("escalated", pa.bool_()),
        ("latency_ms", pa.float64()),
        ("model_version", pa.string()),
    ]
)
"""``refused`` is null without a reply; every other column is null where the record has no value."""
_FALSE = {"", "0", "0.0", "false", "no", "none", "null", "ok"}


@dataclass
class LogRows:
    """The requests of a window: readable conversations, a line for every request, and how many lie outside."""

    ingested: Ingested
    lines: list[dict[str, Any]]
    num_outside: int


def read_log(source: Source, config: LogConfig, window: Window) -> LogRows:
    """The requests made inside a window.

    A conversation's row carries the verdict as the group ``feedback``, and as ``context`` the reply that a person wrote
    instead: both go through the same scrubbing as the conversation.

    Raises:
        InputError: With the format ``auto``, no record has the columns of any.
    """
    readable = (record.fields for record in source.records if record.fault is None)
    survey = ColumnSurvey(config)
    if config.format == "auto":
        found = find_format(survey.watching(readable), config, source.name)
    else:
        found = config.format
        deque(survey.watching(readable), maxlen=0)
    notes = [*source.notes, *survey.check(source.name, is_log=True)]
    times = TimeCheck(config)
    names = names_of(source, config)
    collected = Collected(found, names)
    lines: list[dict[str, Any]] = []
    num_outside = 0
    as_given = config.model_copy(update={"correction_column": None, "context_column": None})
    unknown: Counter[str] = Counter()
    for number, given in enumerate(source.records):
        record = replace(given, fields=survey.prepared(given.fields))
        try:
            if record.fault:
                raise RowFaultError(record.fault)
            times.see(time := time_of(record.fields, config))
            if not window.holds({"created_at": time}):
                num_outside += 1
                continue
            line = _line(record.fields, config, unknown)
            lines.append(line)
            row = to_row(record.fields, found, as_given, source.name)
            row["context"] = correction_of(record.fields, config)
            row["groups"] = [
                *row["groups"],
                *([{"name": "feedback", "value": line["feedback"]}] if line["feedback"] else []),
            ]
            if found != "preferences" and row["messages"] and row["messages"][-1]["role"] == "assistant":
                line["refused"] = is_refusal(reply(row))
            collected.add(row, number)
        except RowFaultError as fault:
            collected.quarantined_rows.append(quarantine_record(record, config, names, fault.reason, fault.field))
    ingested = collected.finalize(source, config.max_rows, config.seed)
    ingested.notes += notes + times.check(source.name)
    ingested.notes += [f"{count} values of {name} mean nothing known" for name, count in sorted(unknown.items())]
    return LogRows(ingested, lines, num_outside)


def _line(fields: Fields, config: LogConfig, unknown: Counter[str]) -> dict[str, Any]:
    try:
        feedback = feedback_of(fields, config)
    except RowFaultError:
        feedback = None
        unknown["feedback_column"] += 1
    return {
        "created_at": time_of(fields, config),
        "feedback": feedback,
        "refused": None,
        "failed": _flag(fields, config.error_column),
        "escalated": _flag(fields, config.escalation_column),
        "latency_ms": _number(fields, config.latency_column, unknown),
        "model_version": str(version) if (version := fields.get("model_version")) is not None else None,
    }


def _flag(fields: Mapping[str, Any], column: str | None) -> bool | None:
    """Whether a column is true: true, a number other than 0, or any text but a word for no; null is false."""
    if column is None or column not in fields:
        return None
    return str(fields[column] if fields[column] is not None else "").strip().lower() not in _FALSE


def _number(fields: Mapping[str, Any], column: str | None, unknown: Counter[str]) -> float | None:
    value = fields.get(column) if column else None
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0.0 <= number < float("inf"):
        unknown["latency_column"] += 1
        return None
    return number
