"""Sharing rows out by group: who is frozen for testing, what must not be trained on, train against validation.

Groups are near-duplicate clusters: what deduplication named in ``split_group``, and in addition what became near only
through scrubbing (two tickets that differed in their customers' names). A group is chosen by a keyed hash of its name, so
that the choice depends on the seed and on the rows, never on their order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.errors import InputError
from tasks.core.quarantine import refusal
from tasks.core.rows import Row, iter_texts
from tasks.text.similarity import components, near_across, near_clusters, prompt_views, text_key

FREEZE, DECONTAMINATE, SPLIT = "freeze_test_set", "decontaminate", "split"
MIN_ROWS = 8
"""Fewer rows cannot be shared out among training, validation and test in any meaningful way."""


@dataclass(frozen=True)
class Decontaminated:
    """Rows that may be trained on, the dropped ones as quarantine rows, and how many frozen rows had a near twin."""

    kept: list[dict[str, Any]]
    dropped: list[dict[str, Any]]
    num_twinned: int


def groups_of(rows: Sequence[Row], threshold: float) -> list[str]:
    """The name of each row's group: rows that share a ``split_group`` or are near each other share a name.

    The name is the smallest ``split_group`` (or view, for rows without one) in the group.
    """
    views = prompt_views(rows)
    names = [row.get("split_group") or f"v-{text_key(view)}" for row, view in zip(rows, views, strict=True)]
    first: dict[str, int] = {}
    same_name = [(first.setdefault(name, index), index) for index, name in enumerate(names)]
    roots = components(len(rows), [*same_name, *enumerate(near_clusters(views, threshold))])
    smallest: dict[int, str] = {}
    for root, name in zip(roots, names, strict=True):
        smallest[root] = min(name, smallest.get(root, name))
    return [smallest[root] for root in roots]


def choose_groups(
    groups: Sequence[str], *, share: float, max_rows: int | None, purpose: str, seed: int, where: str
) -> set[str]:
    """The groups to set aside: in the order of their keyed hashes, as many whole ones as fit into the share.

    Args:
        groups: The group of each row.
        share: Share of the rows to set aside; at least one row is, and never all.
        max_rows: Upper limit on the rows set aside.
        purpose: ``test`` or ``validation``; the two choices are independent.
        seed: Another seed chooses other groups.
        where: What is being split, for the error.

    Raises:
        InputError: There are fewer than :data:`MIN_ROWS` rows, or all rows belong to one group.
    """
    sizes: dict[str, int] = defaultdict(int)
    for group in groups:
        sizes[group] += 1
    if len(groups) < MIN_ROWS or len(sizes) < 2:
        raise InputError(
            where,
            f"{len(groups)} rows in {len(sizes)} near-duplicate groups",
            f"at least {MIN_ROWS} rows in 2 groups to set some aside for {purpose}",
            "Add rows; if an earlier stage removed too many, its report says why.",
        )
    target = max(1, round(share * len(groups)))
    target = min(target, max_rows or target, len(groups) - 1)
    chosen: set[str] = set()
    num_chosen = 0
    for group in sorted(sizes, key=lambda name: _keyed_hash(name, purpose, seed)):
        if num_chosen + sizes[group] <= target:
            chosen.add(group)
            num_chosen += sizes[group]
    if not chosen:
        smallest = min(sizes, key=lambda name: (sizes[name], _keyed_hash(name, purpose, seed)))
        chosen.add(smallest)
    return chosen


def decontaminate_rows(
    rows: Sequence[Row],
    frozen: Sequence[Row],
    *,
    threshold: float,
    reasons: tuple[str, str] = ("held_out", "near_frozen"),
) -> Decontaminated:
    """The rows that neither are, nor equal, nor nearly equal a frozen row.

    Args:
        rows: Rows about to be trained on, of either kind.
        frozen: Rows of the frozen test set, or of the fresh one, of either kind.
        threshold: Jaccard similarity of prompts from which a row is too near.
        reasons: Reason codes of the frozen row itself, and of a row of a frozen row's group or with nearly its prompt.
    """
    frozen_groups = {row["split_group"] for row in frozen if row.get("split_group")}
    frozen_keys = {(row["id"], _content_key(row)) for row in frozen}
    views = prompt_views([*frozen, *rows])
    twins = near_across(views[len(frozen) :], views[: len(frozen)], threshold)
    kept: list[dict[str, Any]] = []
    dropped: list[dict[str, Any]] = []
    twinned: set[int] = set()
    for row, near in zip(rows, twins, strict=True):
        if (row["id"], _content_key(row)) in frozen_keys:
            reason = reasons[0]
        elif near or row.get("split_group") in frozen_groups:
            reason = reasons[1]
            twinned.update(near)
        else:
            kept.append(dict(row))
            continue
        dropped.append(refusal(DECONTAMINATE, str(row["id"]), reason, row, disposition="dropped"))
    return Decontaminated(kept, dropped, len(twinned))


def keyed_share(name: str, *, purpose: str, seed: int) -> float:
    """Where a group's keyed hash lies between 0 and 1; the same whatever other groups there are."""
    return float(int.from_bytes(_keyed_hash(name, purpose, seed)) / 2**128)


def _content_key(row: Mapping[str, Any]) -> str:
    return text_key(*(text for _, text in iter_texts(row)))


def _keyed_hash(name: str, purpose: str, seed: int) -> bytes:
    return hashlib.blake2b(name.encode(), key=f"{purpose}:{seed}".encode(), digest_size=16).digest()
