"""The rows that a training learns when it continues a version: what is new to it, and some that it knows."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.core.rows import Row
from tasks.core.storage import sha256_of_json
from tasks.core.timestamps import parse_timestamp


@dataclass(frozen=True)
class Refresh:
    """The rows to learn, in their order, and how many of them are new and how many are replayed."""

    rows: list[dict[str, Any]]
    num_new: int
    num_replayed: int


def content_of(row: Row) -> str:
    """A digest of what a row teaches: its conversation, to the letter."""
    return sha256_of_json(row["messages"])


def choose_rows(rows: Sequence[Row], learned: Iterable[str], *, replay: float, seed: int) -> Refresh:
    """Every row that is new, and of the others as many as ``replay`` says, spread evenly.

    One row of every stratum is taken before a second one of any, the newest first: a stratum is a label, or for rows without
    one a group of near duplicates. Only rows of today are replayed: what the source no longer gives, or a gate no longer
    passes, is not learned again. The choice depends on contents and seed, not on the order of the rows.

    Args:
        rows: Canonical rows of conversations.
        learned: :func:`content_of` every row that was learned before.
        replay: Replayed rows for each new one.
        seed: Chooses among the rows of a stratum that are of one time, or of none.
    """
    known = set(learned)
    strata: dict[str, list[tuple[float, bytes, int]]] = defaultdict(list)
    chosen = set()
    for index, row in enumerate(rows):
        digest = content_of(row)
        if digest not in known:
            chosen.add(index)
            continue
        stratum = str(row.get("label") or row.get("split_group") or digest)
        strata[stratum].append((-_seconds(row), _keyed(digest, seed), index))
    num_new, turns = len(chosen), []
    for stratum, members in strata.items():
        turns += [(turn, _keyed(stratum, seed), index) for turn, (*_, index) in enumerate(sorted(members))]
    replayed = [index for _, _, index in sorted(turns)[: math.ceil(replay * num_new)]]
    chosen.update(replayed)
    return Refresh([dict(rows[index]) for index in sorted(chosen)], num_new, len(replayed))


def _keyed(name: str, seed: int) -> bytes:
    return hashlib.blake2b(name.encode(), key=f"replay:{seed}".encode(), digest_size=16).digest()


def _seconds(row: Row) -> float:
    """When a row was made, in seconds since 1970; 0 where it does not say."""
    try:
        return parse_timestamp(row.get("created_at") or "").timestamp()
    except ValueError:
        return 0.0
