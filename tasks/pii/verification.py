"""Proof that scrubbing worked, by other means than the detector that did it."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.contracts import Measurement
from tasks.pii.canaries import make_canaries
from tasks.pii.policy import Policy
from tasks.pii.scrubbing import scrub_batch
from tasks.rows import Row, iter_texts

_PATTERNS: Mapping[str, re.Pattern[str]] = {
    "EMAIL_ADDRESS": re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}"),
    "US_SSN": re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"),
    "CREDIT_CARD": re.compile(r"(?<!\d)[3-6]\d{3}([ -]?)\d{4}\1\d{4}\1\d{4}(?!\d)"),
    "IP_ADDRESS": re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
}


@dataclass(frozen=True)
class PatternHit:
    """An independent pattern that matched in scrubbed text: where, and which; never the value."""

    row_id: str
    field: str
    start: int
    end: int
    pattern: str


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927); 95 % by default."""
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def measure_canaries(policy: Policy, count: int, seed: int) -> tuple[Measurement, int]:
    """Recall over the canaries with its 95 % interval, and how many leaked (three letters or digits survive)."""
    canaries = make_canaries(count, seed)
    scrubbed = scrub_batch([canary.text for canary in canaries], policy)
    leaked = sum(
        text is not None and any(part in text for part in re.findall(r"\w{3,}", canary.value))
        for canary, text in zip(canaries, scrubbed.texts, strict=True)
    )
    low, high = wilson_interval(count - leaked, count)
    return Measurement(name="canary_recall", value=1 - leaked / count, low=low, high=high, num_samples=count), leaked


def find_leaks(rows: Sequence[Row], outputs: Mapping[tuple[str, str], Sequence[tuple[int, int]]]) -> list[PatternHit]:
    """Hits of the independent patterns in scrubbed rows, outside what the scrubber itself wrote.

    Args:
        rows: Scrubbed rows.
        outputs: The output spans by row id and field.
    """
    hits = []
    for row in rows:
        for field, text in iter_texts(row):
            written = outputs.get((row["id"], field), ())
            for name, pattern in _PATTERNS.items():
                for match in pattern.finditer(text):
                    if not any(start < match.end() and match.start() < end for start, end in written):
                        hits.append(PatternHit(row["id"], field, match.start(), match.end(), name))
    return hits


def sample_rows(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """A random sample of rows for a reviewer, in order of id; the same for the same rows in any order."""
    ordered = sorted(rows, key=lambda row: str(row["id"]))
    return sorted(random.Random(seed).sample(ordered, min(size, len(ordered))), key=lambda row: str(row["id"]))
