"""Planted controls: the audit measured on the user's own data, by faults planted in a copy of it.

No outside benchmark tells how well an audit works on these rows, so each run plants faults in one or two rows of a hundred
of a copy, audits the copy as if it had come so, and counts what was found. Faults are planted only where the audit of the
data itself found nothing, and the rows it did flag there are set aside when precision is counted: whether they are right
is not known. The note of each precision says what it is when all of them are counted as false alarms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tasks.contracts import Measurement
from tasks.intervals import wilson_interval
from tasks.labels.classification import LabelFindings, Mask, audit_classes
from tasks.labels.config import LabelAuditConfig, ReplyFault
from tasks.labels.corruption import REPLY_FAULTS, corrupt_reply
from tasks.labels.replies import ReplyFindings, Thresholds, judge_replies
from tasks.labels.vectors import Vectors

MAX_ROWS = 5000
"""A copy of more rows is a random part of them: the figures are as good, and cost less than the audit."""
MIN_CONTROLS = 10


def label_controls(
    features: Any, labels: Sequence[str], found: LabelFindings, config: LabelAuditConfig
) -> list[Measurement]:
    """Precision and recall of the class audit on wrong labels planted in a copy.

    Half of the wrong labels are any other class, half the class that the audit's classifier thinks second likeliest for
    the row: careless and understandable mistakes.
    """
    rng = np.random.default_rng(config.seed + 1)
    pool = np.sort(rng.permutation(np.flatnonzero(found.audited))[:MAX_ROWS])
    flagged_before = (found.automatic | found.review)[pool]
    planted_at = _choose(rng, np.flatnonzero(~flagged_before), len(pool), config.control_share)
    if not len(planted_at):
        return []
    classes = sorted({labels[index] for index in pool.tolist()})
    copy = [labels[index] for index in pool.tolist()]
    for number, place in enumerate(planted_at.tolist()):
        other = found.runner_up[int(pool[place])]
        if number % 2 or other == copy[place] or other not in classes:
            other = str(rng.choice([name for name in classes if name != copy[place]]))
        copy[place] = other
    again = audit_classes(
        features[pool], copy, num_folds=config.num_folds, min_class_size=config.min_class_size, seed=config.seed
    )
    planted = np.zeros(len(pool), dtype=bool)
    planted[planted_at] = True
    planted &= again.audited
    return [
        *_precision_recall("labels.automatic", again.automatic, planted, flagged_before),
        *_precision_recall("labels", again.automatic | again.review, planted, flagged_before),
    ]


def reply_controls(
    prompts: Sequence[str],
    replies: Sequence[str],
    embed: Callable[[Sequence[str]], Vectors],
    found: ReplyFindings,
    thresholds: Thresholds,
    config: LabelAuditConfig,
) -> list[Measurement]:
    """Precision and recall of the reply audit on faults planted in a copy, over all kinds, and recall by kind."""
    rng = np.random.default_rng(config.seed + 2)
    pool = np.sort(rng.permutation(len(prompts))[:MAX_ROWS])
    flagged_before = (found.suspicion >= thresholds.review)[pool]
    copy = [replies[index] for index in pool.tolist()]
    originals = list(copy)
    kinds = np.full(len(pool), -1)
    for number, place in enumerate(_choose(rng, np.flatnonzero(~flagged_before), len(pool), config.control_share).tolist()):
        fault: ReplyFault = REPLY_FAULTS[number % len(REPLY_FAULTS)]
        broken = corrupt_reply(fault, place, originals, rng)
        if broken is not None:
            copy[place] = broken
            kinds[place] = REPLY_FAULTS.index(fault)
    planted = kinds >= 0
    if not planted.any():
        return []
    again = judge_replies(
        [prompts[index] for index in pool.tolist()], copy, embed, num_folds=config.num_folds, seed=config.seed
    )
    flagged = again.suspicion >= thresholds.review
    measurements = [
        *_precision_recall("replies.automatic", again.suspicion >= thresholds.automatic, planted, flagged_before),
        *_precision_recall("replies", flagged, planted, flagged_before),
    ]
    for number, fault in enumerate(REPLY_FAULTS):
        of_kind = kinds == number
        if of_kind.any():
            measurements.append(_share(f"control.replies.{fault}.recall", int(flagged[of_kind].sum()), int(of_kind.sum())))
    return measurements


def _choose(rng: np.random.Generator, places: np.ndarray[Any, Any], num_rows: int, share: float) -> np.ndarray[Any, Any]:
    """Where to plant: ``share`` of the rows, at least ten, never more than one row in twenty."""
    wanted = min(max(MIN_CONTROLS, round(share * num_rows)), num_rows // 20) if share > 0 else 0
    return np.asarray(rng.permutation(places)[:wanted])


def _precision_recall(name: str, flagged: Mask, planted: Mask, set_aside: Mask) -> list[Measurement]:
    hits = int((flagged & planted).sum())
    considered = int((flagged & (planted | ~set_aside)).sum())
    everything = int(flagged.sum())
    note = (
        f"{hits / everything:.2f} if all {everything - considered} rows flagged in the data itself were false alarms"
        if (everything > considered)
        else ""
    )
    return [
        _share(f"control.{name}.recall", hits, int(planted.sum())),
        _share(f"control.{name}.precision", hits, considered, note),
    ]


def _share(name: str, count: int, total: int, note: str = "") -> Measurement:
    if total == 0:
        return Measurement(name=name, value=None, num_samples=0, note=note or "nothing was flagged")
    low, high = wilson_interval(count, total)
    return Measurement(name=name, value=count / total, low=low, high=high, num_samples=total, note=note)
