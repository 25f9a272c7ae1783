"""Paired differences between two models on the same examples: intervals, and p-values of "no harm"."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tasks.promotion.config import PromotionConfig
from tasks.stats.bootstrap import Interval, Values, resampled_means, statistic_interval
from tasks.stats.estimates import are_binary, mean_difference


def difference(candidate: Values, other: Values, config: PromotionConfig) -> Interval:
    """The mean of candidate minus other with its interval, see :func:`tasks.stats.estimates.mean_difference`."""
    return mean_difference(
        candidate, other, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed
    )


def mean_ratio(candidate: Values, other: Values, config: PromotionConfig) -> Interval:
    """The ratio of the means minus 1, by resampling pairs."""
    return _ratio(candidate, other, config.num_resamples, config, lambda rows: rows.mean(axis=1))


def p95_ratio(candidate: Values, other: Values, config: PromotionConfig) -> Interval:
    """The ratio of the 95th percentiles minus 1, by resampling pairs."""
    # Quantiles cost more than means, and 2,000 resamples are enough for the ends.
    return _ratio(candidate, other, min(config.num_resamples, 2_000), config, lambda rows: np.quantile(rows, 0.95, axis=1))


def _ratio(
    candidate: Values, other: Values, num_resamples: int, config: PromotionConfig, statistic: Callable[[Values], Values]
) -> Interval:
    """The ratio of a statistic of both models minus 1; resampled on logarithms, so that swapping the models inverts it."""

    def log_ratio(rows: Values) -> Values:
        both: Values = np.log(np.maximum(statistic(rows), 1e-9))
        return both[:, 0] - both[:, 1]

    interval = statistic_interval(
        np.column_stack([candidate, other]),
        log_ratio,
        confidence=config.confidence,
        num_resamples=num_resamples,
        seed=config.seed,
    )
    return Interval(math.expm1(interval.estimate), math.expm1(interval.low), math.expm1(interval.high))


def p_no_harm(candidate: Values, other: Values, sign: int, config: PromotionConfig) -> float:
    """The p-value of "no harm".

    It is the exact sign test of the examples that differ (McNemar 1947) when every score is 0 or 1, else how often a
    resampled mean gain reaches 0.

    Args:
        candidate: Scores, shape ``(num_examples,)``.
        other: The opponent's scores of the same examples.
        sign: 1 where a higher score is better, else -1.
        config: The resampling's number and seed.
    """
    gains = sign * (candidate - other)
    if are_binary(candidate, other):
        return _at_least_heads(int(np.count_nonzero(gains < 0)), int(np.count_nonzero(gains)))
    means = resampled_means(gains, num_resamples=config.num_resamples, seed=config.seed)
    return float((1 + np.count_nonzero(means >= 0)) / (1 + len(means)))


def _at_least_heads(heads: int, tosses: int) -> float:
    """The probability of at least this many heads in this many tosses of a fair coin."""
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, tosses + 1)))])
    log_combinations = log_factorials[tosses] - log_factorials - log_factorials[::-1]
    return min(1.0, float(np.exp(log_combinations[heads:] - tosses * math.log(2)).sum()))
