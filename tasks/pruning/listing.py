"""The list of what may go, as a file of the store: it can be longer than a contract may be."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tasks.contracts.pruning import PruneCandidate, PruneReport
from tasks.core.storage import Store


def totals_of(items: Iterable[PruneCandidate]) -> tuple[tuple[str, int, int], ...]:
    """Number and bytes by kind, in the order in which the kinds came."""
    totals: dict[str, tuple[int, int]] = {}
    for one in items:
        count, size = totals.get(one.kind, (0, 0))
        totals[one.kind] = (count + 1, size + one.size_bytes)
    return tuple((kind, count, size) for kind, (count, size) in totals.items())


def list_items(items: Iterable[PruneCandidate]) -> bytes:
    """The list as JSON."""
    return json.dumps([one.model_dump(mode="json") for one in items], indent=1).encode()


def read_items(store: Store, report: PruneReport) -> list[PruneCandidate]:
    """The things that a report counts."""
    return [PruneCandidate.model_validate(one) for one in json.loads(store.read_bytes(report.listing))]
