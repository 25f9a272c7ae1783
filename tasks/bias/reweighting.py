"""Row weights under which a group says nothing about the outcome: reweighing after Kamiran and Calders (2012).

A row weighs ``P(group) * P(outcome) / P(group, outcome)``: combinations that are rarer than independence would have them
weigh more. The outcome is the row's label, or, where no row has one, whether its reply refuses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tasks.core.rows import Row, reply
from tasks.text.refusals import is_refusal

MAX_WEIGHT = 10.0
"""A combination of a few rows must not rule the training; larger weights are cut to it."""


def row_weights(rows: Sequence[Row], group_name: str) -> dict[str, float]:
    """The weight of each row that declares the group, by row id; equal to 1 on average unless cut."""
    groups = {str(row["id"]): _declared(row, group_name) for row in rows}
    declared = [row for row in rows if groups[str(row["id"])] is not None]
    has_labels = any(row.get("label") for row in declared)
    cells = {
        str(row["id"]): (
            groups[str(row["id"])],
            str(row.get("label") or "") if has_labels else str(is_refusal(reply(row))),
        )
        for row in declared
    }
    pairs = Counter(cells.values())
    group_sizes = Counter(group for group, _ in cells.values())
    outcome_sizes = Counter(outcome for _, outcome in cells.values())
    weight_of = {
        (group, outcome): min(MAX_WEIGHT, group_sizes[group] * outcome_sizes[outcome] / (len(cells) * count))
        for (group, outcome), count in pairs.items()
    }
    return {row_id: weight_of[cell] for row_id, cell in sorted(cells.items())}


def _declared(row: Row, group_name: str) -> str | None:
    return next((item["value"] for item in row.get("groups") or () if item["name"] == group_name), None)
