"""Intervals agree with SciPy's, cover what they promise, mirror, and narrow with more data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import bootstrap as scipy_bootstrap

from tasks.stats.bootstrap import Values, mean_interval, resampled_means, statistic_interval


@pytest.mark.parametrize("shape", ["normal", "skewed", "binary"])
def test_bca_agrees_with_scipy(shape: str) -> None:
    generator = np.random.default_rng(3)
    values = {
        "normal": generator.normal(0.1, 0.3, 120),
        "skewed": generator.exponential(1.0, 120),
        "binary": generator.integers(0, 2, 120).astype(float),
    }[shape]
    ours = mean_interval(values, confidence=0.95, num_resamples=20_000, seed=0)
    theirs = scipy_bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=1, batch=1000).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.03 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.03 * width)
    assert ours.estimate == values.mean()


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    trials = 400
    covered = 0
    for trial in range(trials):
        interval = mean_interval(generator.exponential(1.0, 60), confidence=0.9, num_resamples=1000, seed=trial)
        covered += interval.low <= 1.0 <= interval.high
    assert 0.85 <= covered / trials <= 0.93  # a plain percentile interval of this skewed mean covers less


def test_negated_values_mirror_the_interval() -> None:
    values = np.random.default_rng(0).exponential(1.0, 80)
    one = mean_interval(values, confidence=0.95, num_resamples=2000, seed=1)
    other = mean_interval(-values, confidence=0.95, num_resamples=2000, seed=1)
    assert (other.low, other.high) == pytest.approx((-one.high, -one.low))


def test_equal_values_have_no_width() -> None:
    interval = mean_interval(np.full(50, 0.25), confidence=0.95, num_resamples=1000, seed=0)
    assert (interval.low, interval.estimate, interval.high) == (0.25, 0.25, 0.25)


def test_the_same_seed_gives_the_same_interval_and_blocks_do_not_show() -> None:
    values = np.random.default_rng(0).normal(size=70)
    few = resampled_means(values, num_resamples=1000, seed=4)
    assert (few == resampled_means(values, num_resamples=1000, seed=4)).all()
    assert few.mean() == pytest.approx(values.mean(), abs=0.02)
    large = np.random.default_rng(0).normal(size=1_500_000)  # more than a block holds: one resample at a time
    assert resampled_means(large, num_resamples=3, seed=0).shape == (3,)


def test_a_statistic_of_columns_agrees_with_the_mean_interval() -> None:
    values = np.random.default_rng(2).normal(1.0, 0.5, 200)

    def mean_of_first(rows: Values) -> Values:
        means: Values = rows[..., 0].mean(axis=1)
        return means

    one = statistic_interval(values[:, None], mean_of_first, confidence=0.95, num_resamples=5000, seed=0)
    other = mean_interval(values, confidence=0.95, num_resamples=5000, seed=0)
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=0.01)
    assert one.estimate == other.estimate
