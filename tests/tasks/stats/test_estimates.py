"""Scores of 0 and 1 are estimated by exact forms, because resampling is lenient on few examples that differ."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from tasks.stats.estimates import mean_difference, mean_score

SETTINGS: dict[str, Any] = {"confidence": 0.95, "num_resamples": 1_000, "seed": 0}


def scores(both: int, only_candidate: int, only_other: int, neither: int) -> tuple[Any, Any]:
    numbers = [both, only_candidate, only_other, neither]
    return np.repeat([1.0, 1.0, 0.0, 0.0], numbers), np.repeat([1.0, 0.0, 1.0, 0.0], numbers)


def test_three_wins_and_no_loss_are_chance() -> None:
    interval = mean_difference(*scores(30, 3, 0, 27), **SETTINGS)
    assert interval.estimate == 0.05
    assert interval.low < 0 < interval.high
    mirrored = mean_difference(*reversed(scores(30, 3, 0, 27)), **SETTINGS)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_models_that_agree_on_everything_have_shown_no_equality_beyond_their_number() -> None:
    few, many = (mean_difference(*scores(number, 0, 0, 0), **SETTINGS) for number in (50, 5_000))
    assert few.low < -0.05
    assert many.low > -0.001


@pytest.mark.parametrize("share_differing", [0.02, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("num_examples", [50, 200])
def test_equal_models_are_called_better_no_more_often_than_promised(num_examples: int, share_differing: float) -> None:
    """Summed over every outcome: the share of the differing examples is known, and each falls to either side by a coin."""
    called = 0.0
    for differing in range(num_examples + 1):
        weight = binom.pmf(differing, num_examples, share_differing)
        if weight < 1e-6:
            continue
        both = (num_examples - differing) // 2
        for wins in range(differing // 2, differing + 1):
            parts = (both, wins, differing - wins, num_examples - differing - both)
            if mean_difference(*scores(*parts), **SETTINGS).low > 0:
                called += weight * binom.pmf(wins, differing, 0.5)
    assert called <= 0.025


@pytest.mark.parametrize("right", [0, 30])
def test_thirty_equal_answers_do_not_settle_a_share(right: int) -> None:
    interval = mean_score(np.repeat([1.0, 0.0], [right, 30 - right]), **SETTINGS)
    assert interval.estimate == right / 30
    assert interval.high - interval.low > 0.1


def test_other_scores_are_resampled() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.normal(0.5, 0.1, 200), generator.normal(0.4, 0.1, 200)
    interval = mean_difference(first, second, **SETTINGS)
    assert 0.07 < interval.low < 0.1 < interval.high
    assert mean_score(first, **SETTINGS).low < 0.5 < mean_score(first, **SETTINGS).high
