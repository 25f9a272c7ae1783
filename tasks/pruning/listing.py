"""The list of removable items, as a file of the store: it can be longer than a contract may be."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tasks.contracts.pruning import PruneCandidate, PruneReport
from tasks.core.storage import Store


def totals_of(items: Iterable[PruneCandidate]) -> tuple[tuple[str, int, int], ...]:
    """Number and bytes by kind, in the order in which the kinds first occur."""
    totals: dict[str, tuple[int, int]] = {}
    for item in items:
        count, size = totals.get(item.kind, (0, 0))
        totals[item.kind] = (count + 1, size + item.size_bytes)
    return tuple((kind, count, size) for kind, (count, size) in totals.items())


def list_items(items: Iterable[PruneCandidate]) -> bytes:
    """The list as JSON."""
    return json.dumps([item.model_dump(mode="json") for item in items], indent=1).encode()


def read_items(store: Store, report: PruneReport) -> list[PruneCandidate]:
    """The items that a report counts."""
    return [PruneCandidate.model_validate(item) for item in json.loads(store.read_bytes(report.listing))]


def totals_table(report: PruneReport) -> str:
    """The report as Markdown: a sentence and a table by kind."""
    lines = [
        f"**{'Removed' if report.removed else 'Would remove'}** {report.size_bytes / 1e9:.2f} GB.",
        "",
        *([f"Work folders and unfinished writes alone: {report.note}.", ""] if report.note else []),
        "| what | number | GB |",
        "|---|---|---|",
        *(f"| {kind} | {count:,} | {size / 1e9:.3f} |" for kind, count, size in report.totals),
    ]
    return "\n".join(lines)
