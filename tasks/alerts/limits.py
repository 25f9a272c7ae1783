"""A limit of the rate of requests: a token bucket."""

from __future__ import annotations


class RateLimit:
    """Allows ``per_second`` requests on average, and ``burst`` at once.

    Args:
        per_second: Sustained rate.
        burst: Size of the bucket, full at first.
        now: The clock's reading, in seconds; any clock that does not run backwards.
    """

    def __init__(self, per_second: float, burst: int, now: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._level = float(burst)
        self._at = now

    def take(self, now: float) -> float:
        """0 when the request may pass, else the seconds after which one may."""
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_second)
        self._at = max(now, self._at)
        if self._level >= 1.0:
            self._level -= 1.0
            return 0.0
        return (1.0 - self._level) / self._per_second
