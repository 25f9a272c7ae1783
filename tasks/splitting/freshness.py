"""The fresh set: newest rows that no model has seen, held out of one run's training and given back to the next one's.

The frozen set says whether a model still does what it did; it cannot say whether a refresh has learned what is new. Rows
are fresh when they are newer than every frozen example and lie in the newest window. Whether one of them is held out
depends on its group's hash alone, so that a second run within the same window holds out the same rows: the champion that
it is compared with was not trained on them either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from tasks.core.rows import Row, TableRows
from tasks.core.timestamps import parse_timestamp
from tasks.splitting.groups import MIN_ROWS, groups_of, keyed_share
from tasks.text.near_duplicates import near_across
from tasks.text.normalization import prompt_views


@dataclass(frozen=True)
class Fresh:
    """The places of the rows held out, newer than ``since``; none, and ``reason`` says why, where there are too few."""

    places: list[int]
    since: datetime | None
    reason: str = ""


def choose_fresh(rows: TableRows, frozen: TableRows, *, share: float, days: int, threshold: float, seed: int) -> Fresh:
    """The newest rows to hold out: whole near-duplicate groups without an older or a frozen twin.

    Args:
        rows: All rows of the run, frozen ones among them or not.
        frozen: The frozen test set.
        share: About this share of the rows that could be fresh is held out.
        days: Length of the newest window, counted back from the newest row.
        threshold: Jaccard similarity of prompts from which two rows are near each other.
        seed: Another seed holds out other groups.
    """
    moments = [_moment(row) for row in rows]
    known = [moment for moment in moments if moment is not None]
    if not known:
        return Fresh([], None, "no row says when it was made (created_at)")
    window = max(known) - timedelta(days=days)
    frozen_until = max((moment for row in frozen if (moment := _moment(row))), default=window)
    since = max(window, frozen_until)
    new = [place for place, moment in enumerate(moments) if moment is not None and moment > since]
    old = [place for place, moment in enumerate(moments) if moment is None or moment <= since]
    alone = _without_twins(rows, new, [frozen, rows.take(old)], threshold)
    held_out = [place for place, group in alone if keyed_share(group, purpose="fresh", seed=seed) < share]
    if len(held_out) < MIN_ROWS:
        found = f"{len(new)} rows are newer than {since:%Y-%m-%d}, {len(alone)} of them unlike any older one"
        return Fresh([], since, f"{found}; {share:.0%} of those make no set of {MIN_ROWS} or more")
    return Fresh(held_out, since)


def _without_twins(
    rows: TableRows, places: Sequence[int], old: Sequence[TableRows], threshold: float
) -> list[tuple[int, str]]:
    """The places whose near-duplicate groups hold no old row, each with its group."""
    if not places:
        return []
    new, num_old = rows.take(places), sum(map(len, old))
    views = prompt_views(*old, new)
    twins = near_across(views[num_old:], views[:num_old], threshold)
    old_groups = {row["split_group"] for row in chain(*old) if row.get("split_group")}
    groups = groups_of(new, threshold)
    known = {
        group for row, group, near in zip(new, groups, twins, strict=True) if near or (row.get("split_group") in old_groups)
    }
    return [(place, group) for place, group in zip(places, groups, strict=True) if group not in known]


def _moment(row: Row) -> datetime | None:
    """When the row was made, as UTC where it names no zone; None where it does not say."""
    try:
        return parse_timestamp(row.get("created_at") or "")
    except ValueError:
        return None
