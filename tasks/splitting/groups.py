"""Splits by group: the frozen test set, the rows that must not be trained on, train against validation.

Groups are near-duplicate clusters: those that deduplication named in ``split_group``, joined where scrubbing made their
texts near (two tickets that differed in their customers' names). A group is chosen by a keyed hash of its name, so
that the choice depends on the seed and on the rows, never on their order.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.errors import InputError
from tasks.core.rows import Row, iter_texts
from tasks.text.near_duplicates import components, near_across, near_clusters
from tasks.text.normalization import exact_key, prompt_views

STAGE = "decontaminate"
MIN_ROWS = 8
"""Fewer rows cannot be split into training, validation and test in any meaningful way."""


@dataclass(frozen=True)
class SetAside:
    """The places of the ``chosen`` rows and of the ``rest`` in the data set, and the number of groups among both."""

    chosen: list[int]
    rest: list[int]
    num_groups: int


@dataclass(frozen=True)
class Decontaminated:
    """Why rows must not be trained on, by their places, and how many frozen rows had a near twin."""

    reasons: dict[int, str]
    num_twinned: int


def groups_of(rows: Sequence[Row], threshold: float) -> list[str]:
    """The name of each row's group: rows that share a ``split_group`` or are near each other share a name.

    The name is the smallest ``split_group`` (or view, for rows without one) in the group.
    """
    views = prompt_views(rows)
    names = [row.get("split_group") or f"v-{exact_key(view)}" for row, view in zip(rows, views, strict=True)]
    first: dict[str, int] = {}
    same_name = [(first.setdefault(name, index), index) for index, name in enumerate(names)]
    roots = components(len(rows), [*same_name, *enumerate(near_clusters(views, threshold))])
    smallest: dict[int, str] = {}
    for root, name in zip(roots, names, strict=True):
        smallest[root] = min(name, smallest.get(root, name))
    return [smallest[root] for root in roots]


def set_aside(
    rows: Sequence[Row], *, share: float, max_rows: int | None, purpose: str, seed: int, threshold: float, where: str
) -> SetAside:
    """Some rows chosen by group, so that no near-duplicate group stands on both sides; see :func:`choose_groups`."""
    groups = groups_of(rows, threshold)
    names = choose_groups(groups, share=share, max_rows=max_rows, purpose=purpose, seed=seed, where=where)
    sides: dict[bool, list[int]] = {True: [], False: []}
    for place, group in enumerate(groups):
        sides[group in names].append(place)
    return SetAside(sides[True], sides[False], len(set(groups)))


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
    rows: Sequence[Row], frozen: Sequence[Row], fresh: Sequence[Row] = (), *, threshold: float
) -> Decontaminated:
    """The rows that are, or equal, or nearly equal a frozen or a fresh row.

    Args:
        rows: Rows about to be trained on, of either kind.
        frozen: Rows of the frozen test set, of either kind.
        fresh: Rows of the fresh test set.
        threshold: Jaccard similarity of prompts from which a row is too near.
    """
    result = _compare(rows, frozen, threshold, reasons=("held_out", "near_frozen"))
    newest = _compare(rows, fresh, threshold, reasons=("held_out_fresh", "near_fresh")) if fresh else None
    return Decontaminated((newest.reasons if newest else {}) | result.reasons, result.num_twinned)


def _compare(rows: Sequence[Row], held_out: Sequence[Row], threshold: float, *, reasons: tuple[str, str]) -> Decontaminated:
    """``reasons``: codes of a test row itself, and of a row of a test row's group or with nearly its prompt."""
    groups = {row["split_group"] for row in held_out if row.get("split_group")}
    keys = {(row["id"], _content_key(row)) for row in held_out}
    views = prompt_views(held_out, rows)
    twins = near_across(views[len(held_out) :], views[: len(held_out)], threshold)
    found: dict[int, str] = {}
    twinned: set[int] = set()
    for place, (row, near) in enumerate(zip(rows, twins, strict=True)):
        if (row["id"], _content_key(row)) in keys:
            found[place] = reasons[0]
        elif near or row.get("split_group") in groups:
            found[place] = reasons[1]
            twinned.update(near)
    return Decontaminated(found, len(twinned))


def keyed_share(name: str, *, purpose: str, seed: int) -> float:
    """Where a group's keyed hash lies between 0 and 1; the same whatever other groups there are."""
    return float(int.from_bytes(_keyed_hash(name, purpose, seed)) / 2**128)


def _content_key(row: Row) -> str:
    return exact_key(*(text for _, text in iter_texts(row)))


def _keyed_hash(name: str, purpose: str, seed: int) -> bytes:
    return hashlib.blake2b(name.encode(), key=f"{purpose}:{seed}".encode(), digest_size=16).digest()
