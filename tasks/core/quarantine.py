"""What the data stages keep of a row that they take out: a quarantine row, and counts by reason."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Literal

Disposition = Literal["quarantined", "dropped"]


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
