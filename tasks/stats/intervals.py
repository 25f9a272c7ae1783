"""Exact-form confidence intervals; those by resampling are in :mod:`tasks.stats.bootstrap`."""

from __future__ import annotations

import math
from statistics import NormalDist

Z_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution: two-sided 95 %."""


def two_sided_quantile(confidence: float) -> float:
    """The quantile of the standard normal distribution behind a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def wilson_interval(successes: int, trials: int, z: float = Z_95) -> tuple[float, float]:
    """The Wilson score interval of a share (Wilson 1927), ``(0, 1)`` when nothing was tried.

    Unlike the textbook interval it stays within 0 and 1 and is honest when all, or none, of a few trials succeed.
    """
    if trials == 0:
        return 0.0, 1.0
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low = 0.0 if successes == 0 else (centre - spread) / scale  # exactly; rounding would leave a trace
    high = 1.0 if successes == trials else (centre + spread) / scale
    return low, high


def paired_difference_interval(
    both: int, only_first: int, only_second: int, trials: int, z: float = Z_95
) -> tuple[float, float]:
    """The interval of a difference of two shares, first minus second, of the same trials; ``(-1, 1)`` without trials.

    Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
    method 10: Wilson's intervals of the two shares, joined by their correlation. Where nothing differs in a few trials it
    stays wide, which resampling does not. Swapping the two mirrors it.

    Args:
        both: Trials in which both succeeded.
        only_first: Trials in which only the first did.
        only_second: Trials in which only the second did.
        trials: All trials.
        z: Quantile of the standard normal distribution.
    """
    if trials == 0:
        return -1.0, 1.0
    first, second, neither = both + only_first, both + only_second, trials - both - only_first - only_second
    agreement = float(both * neither - only_first * only_second)
    if agreement > 0:
        agreement = max(agreement - trials / 2, 0.0)
    scale = math.sqrt(first * (trials - first) * second * (trials - second))
    correlation = agreement / scale if scale else 0.0

    def reach(from_first: float, from_second: float) -> float:
        return math.sqrt(max(0.0, from_first**2 - 2 * correlation * from_first * from_second + from_second**2))

    (low_1, high_1), (low_2, high_2) = wilson_interval(first, trials, z), wilson_interval(second, trials, z)
    share_1, share_2 = first / trials, second / trials
    difference = share_1 - share_2
    return (
        difference - reach(share_1 - low_1, high_2 - share_2),
        difference + reach(high_1 - share_1, share_2 - low_2),
    )
