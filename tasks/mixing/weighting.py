"""How often each row of each source is taken; pure, and the same for the same rows, weights and seed."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Sequence
from typing import Any

from tasks.core.rows import Row, iter_texts


def mix_rows(
    sources: Sequence[tuple[str, float, Sequence[Row]]], *, seed: int
) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """The mixed rows, and for each source how many rows it gave and how many of its rows an earlier source had.

    A row's id gets its source's name in front, and a number behind where it is taken again, so that ids stay unique.

    Args:
        sources: Name, weight and rows of each source, the one that wins over its duplicates first.
        seed: Chooses the rows of a fraction of a weight; the choice in one source depends on no other.
    """
    mixed: list[dict[str, Any]] = []
    counts: list[tuple[int, int]] = []
    seen: set[str] = set()
    for name, weight, rows in sources:
        digests = [_digest(row) for row in rows]
        fresh = [row for row, digest in zip(rows, digests, strict=True) if digest not in seen]
        seen.update(digests)
        taken = [
            {**row, "id": f"{name}/{row['id']}" + (f"#{number + 1}" if number else "")}
            for row, times in zip(fresh, _times(len(fresh), weight, f"{seed}-{name}"), strict=True)
            for number in range(times)
        ]
        mixed += taken
        counts.append((len(taken), len(rows) - len(fresh)))
    return mixed, counts


def _times(num_rows: int, weight: float, seed: str) -> list[int]:
    """How often each row is taken: the whole part of the weight, and once more for a random part of the rows."""
    whole = math.floor(weight)
    more = set(random.Random(seed).sample(range(num_rows), round((weight - whole) * num_rows)))
    return [whole + (index in more) for index in range(num_rows)]


def _digest(row: Row) -> str:
    """What makes two rows the same: the conversation, who says what, and the label; not id, source or date."""
    roles = [message["role"] for message in row.get("messages") or ()]
    content = json.dumps([list(iter_texts(row)), roles, row.get("label")])
    return hashlib.sha256(content.encode()).hexdigest()
