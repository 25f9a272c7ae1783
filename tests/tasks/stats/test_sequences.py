"""Looked at after every window, the sequences keep their promise: the truth stays inside, and a worse version is found."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import nchypergeom_fisher

from tasks.stats.sequences import (
    Table,
    conditional_log_likelihood,
    log_evidence,
    log_ratio_grid,
    odds_ratio_sequence,
)

counts = st.integers(0, 40)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    trials, other = draw(counts), draw(counts)
    return Table(draw(st.integers(0, trials)), trials, draw(st.integers(0, other)), other)


def drawn(rng: np.random.Generator, rates: list[float], ratio: float, trials: int, other: int) -> list[Table]:
    """Windows whose first group has ``ratio`` times the champion's odds."""
    found = []
    for rate in rates:
        odds = ratio * rate / (1 - rate)
        raised = odds / (1 + odds)
        found.append(Table(int(rng.binomial(trials, raised)), trials, int(rng.binomial(other, rate)), other))
    return found


# ------------------------------------------------------------------------------------------------------------- exactness


@settings(max_examples=40, deadline=None)
@given(tables(), st.floats(0.1, 10))
def test_the_likelihood_is_fishers_noncentral_hypergeometric(table: Table, ratio: float) -> None:
    total, size = table.events + table.other_events, table.trials + table.other_trials
    found = conditional_log_likelihood(table, np.log([ratio, 1.0]))
    if size == 0 or total == 0:
        assert np.ptp(found) == 0
        return
    expected = [nchypergeom_fisher.logpmf(table.events, size, total, table.trials, odds) for odds in (ratio, 1.0)]
    assert found[0] - found[1] == pytest.approx(expected[0] - expected[1], abs=1e-6)


@pytest.mark.parametrize(("trials", "other", "total"), [(5, 95, 10), (30, 30, 30), (1, 400, 7), (90, 10, 60)])
@pytest.mark.parametrize("truth", [0.25, 0.8, 1.3])
def test_in_no_window_does_the_evidence_against_a_true_null_grow_on_average(
    trials: int, other: int, total: int, truth: float
) -> None:
    reference = 1.3
    grid = log_ratio_grid(reference)
    middle = len(grid) // 2
    parts = range(max(0, total - other), min(total, trials) + 1)
    expected = 0.0
    for part in parts:
        likelihood = conditional_log_likelihood(Table(part, trials, total - part, other), grid)
        expected += nchypergeom_fisher.pmf(part, trials + other, total, trials, truth) * math.exp(
            log_evidence(likelihood)[middle]
        )
    assert expected <= 1 + 1e-9
    if truth == reference:
        assert expected == pytest.approx(1, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(tables(), max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_the_windows_changes_nothing(windows: list[Table], random: object) -> None:
    forth, back = odds_ratio_sequence(windows), odds_ratio_sequence(windows[::-1])
    assert forth.evidence == pytest.approx(back.evidence)
    assert (forth.interval.low, forth.interval.high) == pytest.approx((back.interval.low, back.interval.high))
    assert forth.interval.low < forth.interval.high


@settings(max_examples=40, deadline=None)
@given(st.lists(tables(), min_size=1, max_size=5))
def test_swapping_the_groups_mirrors_the_interval(windows: list[Table]) -> None:
    swapped = [Table(w.other_events, w.other_trials, w.events, w.trials) for w in windows]
    here, there = odds_ratio_sequence(windows).interval, odds_ratio_sequence(swapped).interval
    assert here.low == pytest.approx(1 / there.high if there.high else math.inf)
    assert here.high == pytest.approx(1 / there.low if there.low else math.inf)


# ------------------------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("windows", [[], [Table(0, 0, 3, 10)], [Table(0, 50, 0, 900)], [Table(50, 50, 900, 900)]])
def test_windows_without_information_exclude_nothing(windows: list[Table]) -> None:
    found = odds_ratio_sequence(windows)
    assert (found.interval.low, found.interval.high, found.evidence) == (0.0, math.inf, pytest.approx(1.0))
    assert math.isnan(found.interval.estimate)


def test_a_version_that_always_fails_and_one_that_never_does() -> None:
    always, never = odds_ratio_sequence([Table(20, 20, 0, 400)]), odds_ratio_sequence([Table(0, 1000, 100, 1000)])
    assert (always.interval.estimate, always.interval.high) == (math.inf, math.inf)
    assert always.interval.low > 5
    assert always.evidence > 1e6
    assert (never.interval.estimate, never.interval.low) == (0.0, 0.0)
    assert never.interval.high < 0.2


def test_the_evidence_of_a_long_rollout_stays_finite() -> None:
    found = odds_ratio_sequence([Table(50_000, 100_000, 100_000, 1_900_000)] * 50)
    assert math.isfinite(found.evidence)
    assert found.interval.low < 19 < found.interval.high
    assert found.interval.high / found.interval.low < 1.2


@pytest.mark.parametrize("table", [Table(3, 2, 0, 1), Table(-1, 2, 0, 1), Table(0, 0, 5, 4)])
def test_counts_that_cannot_be_are_rejected(table: Table) -> None:
    with pytest.raises(ValueError, match="0 <= events <= trials"):
        odds_ratio_sequence([table])


# ------------------------------------------------------------------------------------------------------------- simulation


@pytest.mark.parametrize(
    ("rates", "trials", "other"),
    [
        ([0.02], 25, 475),
        ([0.001, 0.2, 0.5, 0.03], 50, 150),  # night, day, an outage of both
        ([0.3], 60, 20),  # more requests to the first group
    ],
)
def test_looked_at_after_every_window_the_truth_stays_inside(rates: list[float], trials: int, other: int) -> None:
    rng, alpha, outside, rejected = np.random.default_rng(7), 0.05, 0, 0
    grid = log_ratio_grid(1.0)
    middle = len(grid) // 2
    for _ in range(200):
        likelihood, low, peak = np.zeros(len(grid)), 0.0, 0.0
        for table in drawn(rng, list(itertools.islice(itertools.cycle(rates), 40)), 1.0, trials, other):
            likelihood = likelihood + conditional_log_likelihood(table, grid)
            peak = max(peak, log_evidence(likelihood)[middle])
            low = max(low, log_evidence(likelihood[::-1])[middle])
        rejected += peak >= -math.log(alpha)
        outside += max(peak, low) >= -math.log(alpha)
    # 200 trials at the promised rates: 10 and 20 expected at most; four standard deviations above.
    assert rejected <= 10 + 4 * math.sqrt(200 * alpha)
    assert outside <= 20 + 4 * math.sqrt(400 * alpha)


def test_a_doubled_error_rate_is_found_and_a_halved_one_is_not() -> None:
    rng = np.random.default_rng(3)
    worse = [odds_ratio_sequence(drawn(rng, [0.02] * 100, 2.05, 50, 950)).evidence >= 100 for _ in range(30)]
    better = [odds_ratio_sequence(drawn(rng, [0.02] * 100, 0.5, 50, 950)).evidence >= 100 for _ in range(30)]
    assert sum(worse) >= 28
    assert sum(better) == 0
