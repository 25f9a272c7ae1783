"""What the data stages keep of a row that they take out: a quarantine row, counts by reason, a table for the run's page."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from tasks.contracts.preparation import StageReport

Disposition = Literal["quarantined", "dropped"]


def artifact_key(kind: str, model: str) -> str:
    """The key of an artifact in Prefect's UI, one per model.

    Args:
        kind: What it shows, such as ``champion``.
        model: The model; characters that Prefect does not allow in a key become hyphens.
    """
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{model}".lower()).strip("-")


def quarantine_row(
    stage: str,
    row_id: str,
    reason: str,
    content: Mapping[str, Any] | str | None,
    *,
    field: str | None = None,
    disposition: Disposition = "quarantined",
) -> dict[str, Any]:
    r"""A row of the quarantine data set (see :data:`tasks.core.rows.QUARANTINE_SCHEMA`).

    Args:
        stage: The stage that takes the row out.
        row_id: The row's id, or ``line-12`` for a line that has none.
        reason: A reason code such as ``empty_reply``.
        content: The row, or the raw line when it could not be parsed; None where a policy forbids to keep it. What UTF-8
            cannot hold is kept as ``\udXXX``.
        field: The field at fault, such as ``messages.1.content``.
        disposition: ``dropped`` for rows that a policy excludes, such as duplicates.
    """
    text = content if content is None or isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return {
        "id": row_id,
        "stage": stage,
        "reason": reason,
        "field": field,
        "disposition": disposition,
        "content": None if text is None else text.encode("utf-8", "backslashreplace").decode("utf-8"),
    }


def count_reasons(quarantined_rows: Iterable[Mapping[str, Any]], disposition: Disposition) -> dict[str, int]:
    """Quarantine rows of one disposition, by reason code, in alphabetical order."""
    return dict(sorted(Counter(row["reason"] for row in quarantined_rows if row["disposition"] == disposition).items()))


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
    return "\n".join([*lines, "", *(f"- {note}" for note in report.notes)])
