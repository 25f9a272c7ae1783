"""Exact-form confidence intervals; those by resampling are in :mod:`tasks.bootstrap`."""

from __future__ import annotations

import math

Z_95 = 1.959964
"""The 97.5 % quantile of the standard normal distribution: two-sided 95 %."""


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
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
