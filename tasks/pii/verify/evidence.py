"""Canary recall, and a sample for a reviewer."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from tasks.contracts.measurement import Measurement
from tasks.core.rows import Row
from tasks.pii.verify.canaries import make_canaries
from tasks.stats.intervals import wilson_interval

ScrubbedText = tuple[str | None, Sequence[tuple[int, int]]]
"""A scrubbed text, None when it was quarantined, and the places of what was written into it."""
Scrubber = Callable[[list[str]], Sequence[ScrubbedText]]


def measure_canaries(scrub: Scrubber, count: int, seed: int) -> tuple[Measurement, dict[str, tuple[int, int]]]:
    """Recall over the canaries with its 95 % interval, and planted and leaked counts by entity.

    A canary leaks when a word or number of its value, of three characters or more, stands in the output. A quarantined
    canary has not leaked: its row would be quarantined.

    Args:
        scrub: What is verified.
        count: Number of canaries.
        seed: Their seed.
    """
    canaries = make_canaries(count, seed)
    counts: dict[str, tuple[int, int]] = {}
    for canary, (text, replacements) in zip(canaries, scrub([canary.text for canary in canaries]), strict=True):
        left = "" if text is None else _outside(text, replacements)
        leaks = any(part in left.lower() for part in re.findall(r"[^\W_]{3,}", canary.value.lower()))
        planted, leaked = counts.get(canary.entity, (0, 0))
        counts[canary.entity] = (planted + 1, leaked + leaks)
    leaked = sum(leaks for _, leaks in counts.values())
    low, high = wilson_interval(count - leaked, count)
    recall = Measurement(name="canary_recall", value=1 - leaked / count, low=low, high=high, num_samples=count)
    return recall, dict(sorted(counts.items()))


def _outside(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with the spans blanked."""
    characters = list(text)
    for start, end in spans:
        characters[start:end] = " " * (end - start)
    return "".join(characters)


def sample_rows(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """A random sample of rows for a reviewer, in order of id; the same for the same rows in any order."""
    ids = [str(row["id"]) for row in rows]
    ordered = sorted(range(len(rows)), key=ids.__getitem__)
    chosen = random.Random(seed).sample(ordered, min(size, len(ordered)))
    return [rows[place] for place in sorted(chosen, key=ids.__getitem__)]
