"""The guard on latency: what it says of injected times, and that no noise makes it hold a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.evaluation import LatencyRound, LatencyRounds
from tasks.promotion.config import PromotionConfig
from tasks.promotion.gate import decide
from tasks.promotion.guard_result import GuardResult
from tasks.promotion.latency import check_latency

CONFIG = PromotionConfig(num_resamples=1000, guards=(), max_retention_loss=None, max_latency_increase=0.2)


def timed(rounds: Any, opponent: Any = "champion") -> LatencyRounds:
    """From seconds of candidate, opponent and opponent again, by round."""
    made = tuple(LatencyRound(candidate=a, opponent=b, opponent_again=c) for a, b, c in rounds)
    return LatencyRounds(opponent=opponent, num_examples=40, device="cpu", rounds=made)


def verdict(rounds: Any, margin: float = 0.2, confidence: float = 0.95) -> GuardResult:
    return check_latency(timed(rounds), margin, confidence, "the champion")


def scattered(ratio: float, noise: float, num_rounds: int = 9, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rounds of a candidate ``ratio`` times as slow, under a load that differs by round and noise that differs by run."""
    generator = np.random.default_rng(seed)
    load = generator.lognormal(0, 1.0, (num_rounds, 1))
    times: np.ndarray[Any, Any] = load * np.array([ratio, 1.0, 1.0]) * generator.lognormal(0, noise, (num_rounds, 3))
    return times


def test_a_quiet_machine_settles_it_whatever_the_load_of_each_round() -> None:
    assert verdict(scattered(1.0, 0.02)).state == "passed"
    assert verdict(scattered(0.4, 0.02)).state == "passed"
    violated = verdict(scattered(1.5, 0.02))
    assert violated.state == "violated"
    assert "timed against itself differs by up to" in violated.reason
    edge = verdict(scattered(1.2, 0.05))
    assert edge.state == "inconclusive"
    assert edge.comparison is not None
    assert edge.comparison.low < 0.2 < edge.comparison.high


def test_noise_wider_than_the_margin_settles_nothing() -> None:
    for ratio in (0.2, 1.0, 10.0):  # not even a model that looks ten times as slow
        found = verdict(scattered(ratio, 1.0))
        assert found.state == "inconclusive"
        assert "quieter machine" in found.remedy


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("factor", [1e6, 1e-6])
def test_one_huge_outlier_moves_nothing(slot: int, factor: float) -> None:
    times = scattered(1.0, 0.02)
    times[4, slot] *= factor
    assert verdict(times).state == "passed"


@pytest.mark.parametrize(
    "rounds",
    [
        [(0.0, 0.0, 0.0)] * 9,
        [(1.0, 1.0, 1.0)] * 8 + [(0.0, 1.0, 1.0)],
        [(float("nan"), 1.0, 1.0)] * 9,
        [(1.0, float("inf"), 1.0)] * 9,
        [(1.0, 1.0, -1.0)] * 9,
    ],
)
def test_a_clock_that_did_not_run_asks_a_person(rounds: Any) -> None:
    found = verdict(rounds)
    assert (found.state, found.comparison) == ("inconclusive", None)
    assert "could not be measured" in found.reason


def test_identical_times_hold_with_an_interval_of_no_width() -> None:
    found = verdict([(2.0, 2.0, 2.0)] * 5, margin=0.0)
    assert found.state == "passed"
    assert found.comparison is not None
    assert (found.comparison.low, found.comparison.high) == (0.0, 0.0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.permutations(range(9)))
def test_neither_the_unit_nor_the_order_of_the_rounds_nor_who_was_timed_first_matters(
    seed: int, unit: float, order: list[int]
) -> None:
    times = scattered(1.1, 0.1, seed=seed)
    found, turned = verdict(times), verdict(unit * times[order][:, [0, 2, 1]])
    assert found.state == turned.state
    assert found.comparison is not None
    assert turned.comparison is not None
    assert (found.comparison.low, found.comparison.high) == pytest.approx((turned.comparison.low, turned.comparison.high))


@pytest.mark.parametrize(("num_rounds", "confidence"), [(6, 0.95), (9, 0.95), (15, 0.95), (9, 0.99), (25, 0.8)])
def test_the_interval_covers_the_true_ratio_as_often_as_it_says(num_rounds: int, confidence: float) -> None:
    covered = 0
    for seed in range(1500):
        comparison = verdict(scattered(1.1, 0.1, num_rounds, seed), confidence=confidence).comparison
        assert comparison is not None
        covered += comparison.low <= 0.1 <= comparison.high
    assert covered / 1500 >= confidence - 0.015


def test_an_equally_fast_model_is_hardly_ever_held_for_its_latency() -> None:
    """Under any noise: heavy tails too, of a machine beside four busy processes."""
    states = []
    for seed in range(600):
        generator = np.random.default_rng(seed)
        noise = generator.choice([0.01, 0.1, 0.5])
        times = generator.lognormal(0, 1, (9, 1)) * np.exp(noise * generator.standard_t(2, (9, 3)))
        states.append(verdict(times).state)
    assert states.count("violated") == 0
    assert states.count("passed") > 150


def arms() -> dict[str, pd.DataFrame]:
    index = pd.Index([f"row-{number}" for number in range(300)], name="id")
    noise = np.random.default_rng(0).normal(0, 0.1, 300)
    tables = {"base": 0.3 + noise, "champion": 0.4 + noise, "candidate": 0.6 + noise[::-1]}
    return {name: pd.DataFrame({"chrf": values}, index=index) for name, values in tables.items()}


def test_the_gate_asks_a_person_where_latency_is_unsettled_and_holds_where_it_is_proven() -> None:
    def outcome(**options: Any) -> str:
        return decide(arms(), CONFIG, champion_version="1", **options).outcome

    assert outcome(latency=timed(scattered(1.0, 0.02))) == "PROMOTE"
    assert outcome(latency=timed(scattered(2.0, 0.02))) == "HOLD"
    assert outcome(latency=timed(scattered(1.0, 1.0))) == "NEEDS_HUMAN"
    assert outcome() == "NEEDS_HUMAN"  # one arm was not timed
    rested = decide({name: table for name, table in arms().items() if name != "champion"}, CONFIG)
    assert rested.outcome == "PROMOTE"  # there is no champion
    off = CONFIG.model_copy(update={"max_latency_increase": None})
    slow = decide(arms(), off, champion_version="1", latency=timed(scattered(5.0, 0.02)))
    assert slow.outcome == "PROMOTE"  # measured as information
