"""The guard on latency: the ratio in each round of one session, and as noise the opponent timed against itself.

Times have outliers on any machine, so the guard compares the median over the rounds, with the interval of its order
statistics. It assumes no distribution, and from nine rounds on a single slow round moves neither end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Literal

from tasks.contracts.evaluation import Comparison, LatencyRound, LatencyRounds
from tasks.promotion.guard_result import GuardResult
from tasks.stats.bootstrap import Interval


def check_latency(timed: LatencyRounds | None, max_increase: float, confidence: float, name: str) -> GuardResult:
    """Whether the candidate is slower by more than is allowed.

    Args:
        timed: Both models timed in turns; None if they were not.
        max_increase: The share by which the candidate may be slower.
        confidence: Of the two-sided intervals.
        name: The opponent, for the reason.

    Returns:
        ``passed`` when the whole interval of the ratio lies within the margin, ``violated`` when all of it lies beyond, else
        ``inconclusive``; also when the opponent's two times differ by more than the margin, or nothing was timed.
    """
    if timed is None or not all(map(_ran, timed.rounds)):
        return GuardResult(
            "inconclusive",
            None,
            "The guard on latency could not be measured, and missing evidence does not pass.",
            "Time both models in one session, set promotion.max_latency_increase to null, or let a person approve.",
        )
    margin = math.log1p(max_increase)
    slower = _median_interval([math.log(lap.candidate / _opponent(lap)) for lap in timed.rounds], confidence)
    same = _median_interval([math.log(lap.opponent_again / lap.opponent) for lap in timed.rounds], confidence)
    noise = max(abs(same.low), abs(same.high))
    state: Literal["passed", "inconclusive", "violated"]
    state = "passed" if slower.high <= margin else "violated" if slower.low > margin else "inconclusive"
    if noise > margin:
        state = "inconclusive"
    comparison = Comparison(
        opponent=timed.opponent,
        metric="latency",
        difference=math.expm1(slower.estimate),
        low=math.expm1(slower.low),
        high=math.expm1(slower.high),
        num_examples=timed.num_examples,
        rule=f"guard: slower by at most {max_increase:g} of it, timed in turns over {len(timed.rounds)} rounds, noise "
        f"{math.expm1(noise):.3f}",
        passed=state == "passed",
    )
    figures = (
        f"{comparison.difference:+.3f} ({confidence:.0%} interval {comparison.low:+.3f} to {comparison.high:+.3f}) against "
        f"{name}, allowed: slower by {max_increase:g}; {name} timed against itself differs by up to {math.expm1(noise):.3f}"
    )
    if state == "passed":
        return GuardResult("passed", comparison)
    if state == "violated":
        return GuardResult(
            "violated", comparison, f"The guard on latency is violated: {figures}.", "A candidate that answers faster."
        )
    return GuardResult(
        "inconclusive",
        comparison,
        f"The guard on latency is inconclusive: {figures}.",
        "Run again on a quieter machine or with more benchmark.latency.num_rounds; a person may decide instead.",
    )


def _ran(lap: LatencyRound) -> bool:
    return all(math.isfinite(seconds) and seconds > 0 for seconds in (lap.candidate, lap.opponent, lap.opponent_again))


def _opponent(lap: LatencyRound) -> float:
    """Both of the opponent's times together, as their geometric mean."""
    return math.sqrt(lap.opponent * lap.opponent_again)


def _median_interval(values: Sequence[float], confidence: float) -> Interval:
    """The median with its interval between two order statistics, or the whole range where even that covers it less often.

    After removing ``k`` of ``n`` values at either end, the rest encloses the median, unless at most ``k`` of ``n`` coin
    tosses are heads, or tails. Five values reach 93.75 %, six 96.9 %.
    """
    ordered, count = sorted(values), len(values)
    tails = list(accumulate(math.comb(count, heads) / 2**count for heads in range((count + 1) // 2)))
    cut = max((k for k, tail in enumerate(tails) if 2 * tail <= 1 - confidence), default=0)
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut])
