"""The guard on placeholders: a candidate that writes ``Dear <PERSON>`` more often than its opponent learned it from rows."""

from __future__ import annotations

import numpy as np

from tasks.contracts.evaluation import Comparison
from tasks.promotion.guard_result import GuardResult
from tasks.stats.bootstrap import Interval, Values

METRIC = "placeholder_rate"


def check_placeholders(
    candidate: Values, other: Values, interval: Interval, max_increase: float, opponent: str, name: str
) -> GuardResult:
    """Whether the candidate leaves placeholders in more replies than is allowed.

    A rise is not allowed when the whole interval lies above 0, or when it exceeds the margin and is more than one reply.

    Args:
        candidate: 1 for each reply with a placeholder, else 0; shape ``(num_examples,)``.
        other: The opponent's, on the same examples.
        interval: Of candidate minus opponent.
        max_increase: The margin, a share.
        opponent: ``base`` or ``champion``.
        name: The opponent, for the reason.
    """
    num_more = int(np.count_nonzero(candidate) - np.count_nonzero(other))
    passed = interval.low <= 0 and (interval.estimate <= max_increase or num_more <= 1)
    comparison = Comparison(
        opponent=opponent,
        metric=METRIC,
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        num_examples=len(candidate),
        rule=f"guard: no proven rise, and none above {max_increase:g}",
        passed=passed,
    )
    if passed:
        return GuardResult("passed", comparison)
    return GuardResult(
        "violated",
        comparison,
        f"{np.count_nonzero(candidate)} of {len(candidate)} replies hold a placeholder of scrubbing, such as <PERSON>, "
        f"against {np.count_nonzero(other)} of {name}: {interval.estimate:+.3f} "
        f"({interval.low:+.3f} to {interval.high:+.3f}), allowed: no proven rise, and none above {max_increase:g}.",
        "Train on replies without placeholders: set `operator: surrogate` in prepare.pii, or remove personal data from the "
        "replies. If these are no placeholders, set benchmark.placeholder_pattern.",
    )
