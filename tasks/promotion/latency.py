"""The guard on latency: the ratio per round of one sitting, against the noise of the opponent timed against itself.

Times have outliers on any machine, so what is compared is the median over the rounds, with the interval that its order
statistics give: no shape is assumed, and one round that something else slowed down moves no end of it from nine rounds on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from statistics import median
from typing import Literal

from tasks.contracts.evaluation import Comparison, LatencyRound, LatencyRounds
from tasks.promotion.verdict import GuardVerdict
from tasks.stats.bootstrap import Interval


def judge_latency(timed: LatencyRounds | None, max_increase: float, confidence: float, name: str) -> GuardVerdict:
    """Whether the candidate is slower by more than is allowed.

    Args:
        timed: Both models timed in turns; None where they were not.
        max_increase: The share by which the candidate may be slower.
        confidence: Of the two-sided intervals.
        name: The opponent in words.

    Returns:
        ``held`` where the whole interval of the ratio lies within the margin, ``broken`` where all of it lies beyond, else
        ``unsettled``; also where the opponent's two times differ by more than the margin, or no clock ran.
    """
    if timed is None or not all(map(_ran, timed.rounds)):
        return GuardVerdict(
            "unsettled",
            None,
            "The guard on latency could not be measured, and missing evidence is not consent.",
            "Time both models in one sitting, set promotion.max_latency_increase to null, or let a person approve.",
        )
    margin = math.log1p(max_increase)
    slower = _median_interval([math.log(one.candidate / _opponent(one)) for one in timed.rounds], confidence)
    same = _median_interval([math.log(one.opponent_again / one.opponent) for one in timed.rounds], confidence)
    noise = max(abs(same.low), abs(same.high))
    state: Literal["held", "unsettled", "broken"]
    state = "held" if slower.high <= margin else "broken" if slower.low > margin else "unsettled"
    if noise > margin:
        state = "unsettled"
    comparison = Comparison(
        opponent=timed.opponent,
        metric="latency",
        difference=math.expm1(slower.estimate),
        low=math.expm1(slower.low),
        high=math.expm1(slower.high),
        num_examples=timed.num_examples,
        rule=f"guard: slower by at most {max_increase:g} of it, timed in turns over {len(timed.rounds)} rounds, noise "
        f"{math.expm1(noise):.3f}",
        passed=state == "held",
    )
    figures = (
        f"{comparison.difference:+.3f} ({confidence:.0%} interval {comparison.low:+.3f} to {comparison.high:+.3f}) against "
        f"{name}, allowed: slower by {max_increase:g}; {name} timed against itself differs by up to {math.expm1(noise):.3f}"
    )
    if state == "held":
        return GuardVerdict("held", comparison)
    if state == "broken":
        return GuardVerdict(
            "broken", comparison, f"The guard on latency is broken: {figures}.", "A candidate that answers faster."
        )
    return GuardVerdict(
        "unsettled",
        comparison,
        f"The guard on latency is not settled: {figures}.",
        "Run again on a quieter machine or with more benchmark.latency.num_rounds; a person may decide instead.",
    )


def _ran(one: LatencyRound) -> bool:
    return all(math.isfinite(seconds) and seconds > 0 for seconds in (one.candidate, one.opponent, one.opponent_again))


def _opponent(one: LatencyRound) -> float:
    """Both of the opponent's times together, as their geometric mean."""
    return math.sqrt(one.opponent * one.opponent_again)


def _median_interval(values: Sequence[float], confidence: float) -> Interval:
    """The median with its interval between two order statistics, or the whole range where that covers it less often.

    Between the values that are left after ``k`` of ``n`` at either end lies the median, unless at most ``k`` of ``n`` tosses
    of a coin are heads, or tails. Five values reach 93.75 %, six 96.9 %.
    """
    ordered, count = sorted(values), len(values)
    tails = list(accumulate(math.comb(count, heads) / 2**count for heads in range((count + 1) // 2)))
    cut = max((k for k, tail in enumerate(tails) if 2 * tail <= 1 - confidence), default=0)
    return Interval(median(ordered), ordered[cut], ordered[count - 1 - cut])
