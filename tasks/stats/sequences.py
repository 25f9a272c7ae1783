"""A confidence sequence of an odds ratio: an interval that stays valid however often, and whenever, somebody looks at it.

A new version is looked at every few minutes and stopped at the first bad look. An interval for one look excludes the truth
at some look far more often than it promises; a confidence sequence contains it at all looks together with its confidence.

Each window gives a 2x2 table: events and trials of the new version, and of the champion in the same minutes. Given the
window's total of events, the new version's part has Fisher's noncentral hypergeometric distribution. It depends on the odds
ratio alone: the rate, which differs between night and day, drops out, and any share of the traffic is valid. For the null
"at most w" and an alternative above w the likelihood ratio of the two distributions rises with that part, so its
expectation is at most 1 in every window whose odds ratio is at most w. Its product over the windows, averaged over
alternatives, is a test supermartingale: it ever reaches ``1 / alpha`` with probability at most ``alpha`` (Ville 1939).
Nothing is asymptotic.

Mixtures and their inversion: Howard, Ramdas, McAuliffe and Sekhon 2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences". E-values for a difference of rates (Turner, Ly and Grünwald 2024) need a bet on the rate before each
window, and lose where it varies.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.stats.bootstrap import Interval, Values

_STEPS_PER_DOUBLING = 16
_REACH = 6 * _STEPS_PER_DOUBLING
"""Odds ratios from 1/64 to 64 times the reference, 4.4 % apart; the interval's ends are rounded outwards to them."""
_MIXED_DOUBLINGS = 4
"""An alternative is mixed up to 16 times the null: larger effects still count, by the likelihood of 16."""
_BLOCK_ELEMENTS = 2_000_000


@dataclass(frozen=True)
class Table:
    """Events and trials of two groups in one window.

    Attributes:
        events: Of the first group, the new version.
        trials: Of the first group; at least its events.
        other_events: Of the second group, the champion.
        other_trials: Of the second group; at least its events.
    """

    events: int
    trials: int
    other_events: int
    other_trials: int


@dataclass(frozen=True)
class OddsRatio:
    """What windows say about an odds ratio, first group to second.

    Attributes:
        interval: The conditional maximum-likelihood estimate with its confidence sequence; an open end is 0 or infinity. The
            estimate is not a number where no window holds information.
        evidence: The e-value against "at most the reference". The null is rejected once it reaches ``1 / alpha``.
    """

    interval: Interval
    evidence: float


def odds_ratio_sequence(tables: Iterable[Table], *, reference: float = 1.0, alpha: float = 0.01) -> OddsRatio:
    """The odds ratio of independent windows, valid at every look; without an informative window the interval is open.

    Args:
        tables: One a window. Their order does not change the result. The rates may differ between windows; the interval is
            that of a constant odds ratio, while ``evidence`` is valid for any that never exceed ``reference``.
        reference: The largest odds ratio that is acceptable, above 0.
        alpha: Probability that the interval's lower end ever lies above the truth; the same for the upper end.
    """
    log_ratios = log_ratio_grid(reference)
    log_likelihood = sum((conditional_log_likelihood(table, log_ratios) for table in tables), np.zeros(len(log_ratios)))
    above, below = log_evidence(log_likelihood), log_evidence(log_likelihood[::-1])[::-1]
    kept = (above < -math.log(alpha), below < -math.log(alpha))
    # Each end is rounded outwards, to the last ratio that is excluded.
    first, last = int(np.argmax(kept[0])), len(log_ratios) - 1 - int(np.argmax(kept[1][::-1]))
    ratios = [0.0, *map(float, np.exp(log_ratios)), math.inf]
    interval = Interval(_estimate(log_likelihood, ratios), ratios[first], ratios[last + 2])
    return OddsRatio(interval, math.exp(min(float(above[_REACH]), 700.0)))


def log_ratio_grid(reference: float) -> Values:
    """The log odds ratios at which likelihoods are computed, with the reference in the middle."""
    steps: Values = np.arange(-_REACH, _REACH + 1, dtype=np.float64) * (math.log(2.0) / _STEPS_PER_DOUBLING)
    return steps + math.log(reference)


def conditional_log_likelihood(table: Table, log_ratios: Values) -> Values:
    """The log probability of the first group's events given both groups' total, up to a constant, by log odds ratio.

    Raises:
        ValueError: A group has more events than trials, or a negative number of them.
    """
    if not (0 <= table.events <= table.trials and 0 <= table.other_events <= table.other_trials):
        raise ValueError("a table needs 0 <= events <= trials in both groups")
    total = table.events + table.other_events
    least, most = max(0, total - table.other_trials), min(total, table.trials)
    part = np.arange(least, most, dtype=np.float64)  # log C(trials, k) C(other_trials, total - k), by its differences in k
    rising = np.log(table.trials - part) + np.log(total - part)
    falling = np.log(part + 1) + np.log(table.other_trials - total + part + 1)
    log_weights = np.concatenate([[0.0], np.cumsum(rising - falling)])
    parts = np.arange(most - least + 1, dtype=np.float64)
    block = max(1, _BLOCK_ELEMENTS // len(parts))
    blocks = [log_ratios[start : start + block] for start in range(0, len(log_ratios), block)]
    log_totals = np.concatenate([_log_sums(log_weights + ratios[:, None] * parts) for ratios in blocks])
    likelihood: Values = (table.events - least) * log_ratios - log_totals
    return likelihood


def log_evidence(log_likelihood: Values) -> Values:
    """The log e-value against "at most this ratio", by ratio: the alternatives above it have equal weights.

    The last ratio of the grid has no alternative above it and is never rejected.
    """
    reach = min(_STEPS_PER_DOUBLING * _MIXED_DOUBLINGS, len(log_likelihood) - 1)
    padded = np.concatenate([log_likelihood[1:], np.full(reach, -np.inf)])
    alternatives = np.lib.stride_tricks.sliding_window_view(padded, reach)[: len(log_likelihood) - 1]
    counts = np.minimum(reach, np.arange(len(log_likelihood) - 1, 0, -1))
    return np.append(_log_sums(alternatives) - np.log(counts) - log_likelihood[:-1], 0.0)


def _estimate(log_likelihood: Values, ratios: Sequence[float]) -> float:
    """The most likely ratio, from the grid's ratios between 0 and infinity; one at the grid's end lies beyond it."""
    if np.ptp(log_likelihood) == 0.0:
        return math.nan
    best = int(np.argmax(log_likelihood))
    return ratios[-1] if best == len(log_likelihood) - 1 else ratios[0] if best == 0 else ratios[best + 1]


def _log_sums(values: Values) -> Values:
    """The logarithm of each row's sum of exponentials."""
    largest = values.max(axis=1)
    sums: Values = largest + np.log(np.exp(values - largest[:, None]).sum(axis=1))
    return sums
