"""p-values of harm use the exact sign test where scores are 0 or 1, and resampling elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tasks.promotion import PromotionConfig
from tasks.promotion.differences import p_no_harm

CONFIG = PromotionConfig(num_resamples=1_000)


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 0), (0, 3), (2, 9), (400, 500)])
def test_harm_is_judged_by_the_exact_sign_test(wins: int, losses: int) -> None:
    numbers = [20, wins, losses, 10]
    candidate, other = np.repeat([1.0, 1.0, 0.0, 0.0], numbers), np.repeat([1.0, 0.0, 1.0, 0.0], numbers)
    expected = binomtest(losses, wins + losses, alternative="greater").pvalue if wins + losses else 1.0
    assert p_no_harm(candidate, other, 1, CONFIG) == pytest.approx(expected)
    assert p_no_harm(other, candidate, -1, CONFIG) == pytest.approx(expected)


def test_other_scores_are_resampled() -> None:
    generator = np.random.default_rng(0)
    candidate, other = generator.normal(0.5, 0.1, 200), generator.normal(0.4, 0.1, 200)
    assert p_no_harm(candidate, other, 1, CONFIG) > 0.99
    assert p_no_harm(other, candidate, 1, CONFIG) < 0.01
