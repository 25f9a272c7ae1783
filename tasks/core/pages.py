"""The Markdown pages of stages in Prefect: their keys, and the tables that several stages show. Counts and figures alone."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import StageReport

_MARKS = re.compile(r"[\\`*_\[\]<>|#~]")


def artifact_key(kind: str, model: str) -> str:
    """The key of an artifact in Prefect's UI, one per model.

    Args:
        kind: What it shows, such as ``champion``.
        model: The model; characters that Prefect does not allow in a key become hyphens.
    """
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{model}".lower()).strip("-")


def markdown_text(text: str) -> str:
    """A text as Markdown that shows it as it is: a label or a group may hold a link, a tag or a table's bar."""
    return _MARKS.sub(r"\\\g<0>", " ".join(text.split()))


def report_table(report: StageReport) -> str:
    """A short Markdown page of one stage: rows in and out, quarantine rows by reason, measurements. Counts only, no text."""
    lines = [
        f"{report.num_rows_in} rows in, {report.dataset.num_rows} out, {report.num_quarantined} quarantined, "
        f"{report.num_dropped} dropped, in {report.seconds:.1f} s.",
        "",
        "| what | how many |",
        "|---|---|",
        *(f"| quarantined: {reason} | {count} |" for reason, count in sorted(report.quarantined.items())),
        *(f"| dropped: {reason} | {count} |" for reason, count in sorted(report.dropped.items())),
        *(f"| {m.name} | {'not measured' if m.value is None else f'{m.value:g}'} |" for m in report.measurements),
    ]
    return "\n".join([*lines, "", *(f"- {markdown_text(note)}" for note in report.notes)])


def measurement_table(title: str, measurements: Iterable[Measurement], *, unit: str, digits: int) -> str:
    """Measurements with their intervals.

    Args:
        title: What a row is, such as ``metric``.
        measurements: The rows.
        unit: What they were measured on, such as ``examples``.
        digits: Significant digits.
    """
    lines = [f"| {title} | value | low | high | {unit} |", "|---|---|---|---|---|"]
    for one in measurements:
        low, value, high = ("" if figure is None else f"{figure:.{digits}g}" for figure in (one.low, one.value, one.high))
        lines.append(f"| {one.name} | {value or 'not measured'} | {low} | {high} | {one.num_samples or 0} |")
    return "\n".join(lines)
