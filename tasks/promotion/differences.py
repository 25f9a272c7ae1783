"""Paired differences between two models on the same examples: their intervals, and how sure it is that no harm was done.

Scores of 0 and 1, such as an exact match, have exact-form answers, and get them. Resampling is lenient there on few
examples that differ: at 200 examples of which one in fifty differs by chance, its 95 % interval lies above 0 in 4.9 % of
the comparisons of equal models, where 2.5 % are promised; Newcombe's in at most 2.5 % everywhere that was looked.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from tasks.bootstrap import Interval, mean_interval, resampled_means, statistic_interval
from tasks.intervals import paired_difference_interval
from tasks.promotion.config import PromotionConfig

Values = NDArray[np.float64]


def mean_difference(candidate: Values, other: Values, config: PromotionConfig) -> Interval:
    """The mean of candidate minus other with its interval; swapping the two mirrors it.

    Newcombe's interval of paired shares where every score is 0 or 1, else the BCa bootstrap's.

    Args:
        candidate: Scores, shape ``(num_examples,)``, at least one.
        other: The opponent's scores of the same examples, in the same order.
        config: Confidence, and the resampling's number and seed.
    """
    if _are_binary(candidate, other):
        both = int(np.count_nonzero((candidate == 1) & (other == 1)))
        only_candidate, only_other = int(candidate.sum()) - both, int(other.sum()) - both
        z = NormalDist().inv_cdf((1 + config.confidence) / 2)
        low, high = paired_difference_interval(both, only_candidate, only_other, len(candidate), z)
        return Interval((only_candidate - only_other) / len(candidate), low, high)
    return mean_interval(
        candidate - other, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed
    )


def p95_ratio(candidate: Values, other: Values, config: PromotionConfig) -> Interval:
    """The ratio of the 95th percentiles minus 1, by resampling pairs; on logarithms, so that swapping inverts it."""

    def log_ratio(rows: Values) -> Values:
        high: Values = np.log(np.maximum(np.quantile(rows, 0.95, axis=1), 1e-9))
        return high[:, 0] - high[:, 1]

    interval = statistic_interval(
        np.column_stack([candidate, other]),
        log_ratio,
        confidence=config.confidence,
        num_resamples=min(config.num_resamples, 2_000),  # quantiles cost more, and 2,000 place the ends well enough
        seed=config.seed,
    )
    return Interval(math.expm1(interval.estimate), math.expm1(interval.low), math.expm1(interval.high))


def p_no_harm(candidate: Values, other: Values, sign: int, config: PromotionConfig) -> float:
    """The p-value of "no harm was done".

    The exact sign test of the examples that differ (McNemar 1947) where every score is 0 or 1; else how often a resampled
    mean gain reaches 0.

    Args:
        candidate: Scores, shape ``(num_examples,)``.
        other: The opponent's scores of the same examples.
        sign: 1 where a higher score is better, else -1.
        config: The resampling's number and seed.
    """
    gains = sign * (candidate - other)
    if _are_binary(candidate, other):
        return _at_least_heads(int(np.count_nonzero(gains < 0)), int(np.count_nonzero(gains)))
    means = resampled_means(gains, num_resamples=config.num_resamples, seed=config.seed)
    return float((1 + np.count_nonzero(means >= 0)) / (1 + len(means)))


def _at_least_heads(heads: int, tosses: int) -> float:
    """How likely a fair coin shows at least so many heads in so many tosses."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, tosses + 1)))])
    log_ways = log_factorials[tosses] - log_factorials - log_factorials[::-1]
    return min(1.0, float(np.exp(log_ways[heads:] - tosses * math.log(2)).sum()))


def _are_binary(*scores: Values) -> bool:
    return all(bool(np.isin(values, (0.0, 1.0)).all()) for values in scores)
