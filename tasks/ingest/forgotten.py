"""Rows of people who were forgotten do not come back from a source that still holds them."""

from __future__ import annotations

from tasks.core.forgetting import SuppressedRows
from tasks.core.quarantine import quarantine_row
from tasks.core.rows import Rows
from tasks.ingest.snapshot import STAGE, Ingested


def without_forgotten(ingested: Ingested, suppressed: SuppressedRows) -> Ingested:
    """What a source gave without the rows of forgotten people; each leaves a quarantine row without content."""
    places, left_out = [], Rows("quarantine")
    for place, row in enumerate(ingested.rows):
        if suppressed.holds(row):
            left_out.append(quarantine_row(STAGE, row["id"], "forgotten", None, disposition="dropped"))
        else:
            places.append(place)
    for row in ingested.quarantined_rows:
        content = row["content"] or ""
        left_out.append({**row, "content": None, "reason": "forgotten"} if suppressed.is_in(content) else dict(row))
    rows = ingested.rows if len(places) == len(ingested.rows) else ingested.rows.take(places)
    return Ingested(ingested.input_format, rows, left_out, ingested.notes)
