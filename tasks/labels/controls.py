"""Planted controls: the audit measured on the user's own data, by faults planted in a copy of it.

No outside benchmark tells how well an audit works on these rows, so each run plants faults in one or two rows of a hundred
of a copy, audits the copy as if it had come so, and counts what was found. Faults are planted only where the audit of the
data itself found nothing, and the rows it did flag there are set aside when precision is counted: whether they are right
is not known. The note of each precision says what it is when all of them are counted as false alarms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.contracts.measurement import Measurement
from tasks.labels.classification import LabelFindings, Mask, audit_classes
from tasks.labels.config import LabelAuditConfig
from tasks.labels.corruption import REPLY_FAULTS, corrupt_reply
from tasks.labels.replies import ReplyFindings, Thresholds, detect_reply_faults
from tasks.labels.vectors import Vectors
from tasks.stats.intervals import wilson_interval

MAX_ROWS = 5000
"""A copy of more rows is a random part of them: the figures are as good, and cost less than the audit."""
MIN_CONTROLS = 10
ENOUGH_CONTROLS = 30
MAX_ROUNDS = 3


def label_controls(
    features: Any, labels: Sequence[str], found: LabelFindings, config: LabelAuditConfig
) -> list[Measurement]:
    """Precision and recall of the class audit on wrong labels planted in a copy.

    Half of the wrong labels are any other class, half the class that the audit's classifier thinks second likeliest for
    the row: careless and understandable mistakes.
    """
    automatic, either = _Tally("labels.automatic"), _Tally("labels")
    for seed in _round_seeds(len(labels), config):
        rng = np.random.default_rng(seed)
        pool = np.sort(rng.permutation(np.flatnonzero(found.audited))[:MAX_ROWS])
        flagged_before = (found.automatic | found.review)[pool]
        planted_at = _choose(rng, np.flatnonzero(~flagged_before), len(pool), config.control_share)
        if not len(planted_at):
            return []
        copy = [labels[index] for index in pool.tolist()]
        classes = sorted(set(copy))
        for number, place in enumerate(planted_at.tolist()):
            other = found.runner_up[int(pool[place])]
            if number % 2 or other == copy[place] or other not in classes:
                other = str(rng.choice([name for name in classes if name != copy[place]]))
            copy[place] = other
        again = audit_classes(
            features[pool], copy, num_folds=config.num_folds, min_class_size=config.min_class_size, seed=config.seed
        )
        planted = np.isin(np.arange(len(pool)), planted_at) & again.audited
        automatic.add(again.automatic, planted, flagged_before)
        either.add(again.automatic | again.review, planted, flagged_before)
    return [*automatic.measurements(), *either.measurements()]


def reply_controls(
    prompts: Sequence[str],
    replies: Sequence[str],
    embed: Callable[[Sequence[str]], Vectors],
    found: ReplyFindings,
    thresholds: Thresholds,
    config: LabelAuditConfig,
) -> list[Measurement]:
    """Precision and recall of the reply audit on faults planted in a copy, over all kinds, and recall by kind."""
    automatic, either = _Tally("replies.automatic"), _Tally("replies")
    hits, planted_kinds = np.zeros(len(REPLY_FAULTS), dtype=int), np.zeros(len(REPLY_FAULTS), dtype=int)
    for seed in _round_seeds(len(replies), config):
        rng = np.random.default_rng(seed)
        pool = np.sort(rng.permutation(len(prompts))[:MAX_ROWS])
        flagged_before = (found.suspicion >= thresholds.review)[pool]
        originals = [replies[index] for index in pool.tolist()]
        copy, kinds = list(originals), np.full(len(pool), -1)
        planted_at = _choose(rng, np.flatnonzero(~flagged_before), len(pool), config.control_share)
        for number, place in enumerate(planted_at.tolist()):
            kind = number % len(REPLY_FAULTS)
            broken = corrupt_reply(REPLY_FAULTS[kind], place, originals, rng, is_control=True)
            if broken is not None:
                copy[place], kinds[place] = broken, kind
        again = detect_reply_faults(
            [prompts[index] for index in pool.tolist()], copy, embed, num_folds=config.num_folds, seed=config.seed
        )
        flagged = again.suspicion >= thresholds.review
        automatic.add(again.suspicion >= thresholds.automatic, kinds >= 0, flagged_before)
        either.add(flagged, kinds >= 0, flagged_before)
        planted_kinds += np.bincount(kinds[kinds >= 0], minlength=len(REPLY_FAULTS))
        hits += np.bincount(kinds[(kinds >= 0) & flagged], minlength=len(REPLY_FAULTS))
    return [
        *automatic.measurements(),
        *either.measurements(),
        *(
            _share(f"control.replies.{fault}.recall", int(hits[kind]), int(planted_kinds[kind]))
            for kind, fault in enumerate(REPLY_FAULTS)
            if planted_kinds[kind]
        ),
    ]


class _Tally:
    """Hits and false alarms of one tier, summed over the rounds."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._hits = self._planted = self._considered = self._flagged = 0

    def add(self, flagged: Mask, planted: Mask, set_aside: Mask) -> None:
        self._hits += int((flagged & planted).sum())
        self._planted += int(planted.sum())
        self._considered += int((flagged & (planted | ~set_aside)).sum())
        self._flagged += int(flagged.sum())

    def measurements(self) -> list[Measurement]:
        if not self._planted:
            return []
        note = ""
        if self._flagged > self._considered:
            note = f"{self._hits / self._flagged:.2f} if all rows flagged in the data itself were false alarms"
        return [
            _share(f"control.{self._name}.recall", self._hits, self._planted),
            _share(f"control.{self._name}.precision", self._hits, self._considered, note),
        ]


def _round_seeds(num_rows: int, config: LabelAuditConfig) -> list[int]:
    """A seed per round: small data is corrupted up to three times over, since ten controls say little."""
    wanted = _num_controls(min(num_rows, MAX_ROWS), config.control_share)
    rounds = min(MAX_ROUNDS, math.ceil(ENOUGH_CONTROLS / wanted)) if wanted else 0
    return [config.seed + 1 + number for number in range(rounds)]


def _num_controls(num_rows: int, share: float) -> int:
    """``share`` of the rows, at least ten, never more than one row in twenty."""
    return min(max(MIN_CONTROLS, round(share * num_rows)), num_rows // 20) if share > 0 else 0


def _choose(rng: np.random.Generator, places: NDArray[np.int64], num_rows: int, share: float) -> NDArray[np.int64]:
    """Where to plant."""
    return np.asarray(rng.permutation(places)[: _num_controls(num_rows, share)])


def _share(name: str, count: int, total: int, note: str = "") -> Measurement:
    if total == 0:
        return Measurement(name=name, value=None, num_samples=0, note=note or "nothing was flagged")
    low, high = wilson_interval(count, total)
    return Measurement(name=name, value=count / total, low=low, high=high, num_samples=total, note=note)
