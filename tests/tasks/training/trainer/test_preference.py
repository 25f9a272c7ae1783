"""Preference figures compare replies of any lengths, by what the method's own loss makes likelier."""

from __future__ import annotations

import math

import pytest

from tasks.training.config import DpoConfig, KtoConfig
from tasks.training.trainer.preference import PairLikelihood, preference_measurements


def pairs(chosen: float, rejected: float, num_chosen: int = 40, num_rejected: int = 10) -> tuple[PairLikelihood, ...]:
    """Ten pairs with these log-probabilities per token; the chosen reply is four times as long."""
    return (PairLikelihood(chosen * num_chosen, rejected * num_rejected, num_chosen, num_rejected),) * 10


def figures(before: dict, after: dict, config: DpoConfig | KtoConfig = DpoConfig()) -> dict[str, float]:  # type: ignore[type-arg]  # noqa: B008
    return {item.name: item.value for item in preference_measurements(before, after, config)}  # type: ignore[misc]


def test_a_long_chosen_reply_is_preferred_when_its_tokens_are_likelier() -> None:
    before, after = {"model": pairs(-2.0, -1.0), "base": pairs(-3.0, -1.0)}, {"model": pairs(-0.5, -1.0)}
    assert sum(after["model"][0][:1]) < after["model"][0].rejected  # the sum would still prefer the short reply
    measured = figures(before, after)
    assert (measured["preference_rate_base"], measured["preference_rate_before"]) == (0.0, 0.0)
    assert (measured["preference_rate_after"], measured["preference_rate_gain"]) == (1.0, 1.0)


def test_the_implicit_reward_counts_where_no_rate_moves() -> None:
    before, after = {"model": pairs(-2.0, -1.0)}, {"model": pairs(-1.5, -1.0)}
    measured = figures(before, after, DpoConfig(beta=0.1))
    assert measured["preference_rate_after"] == 0.0
    assert measured["reward_accuracy_after"] == 1.0
    assert measured["reward_margin_after"] == pytest.approx(0.1 * 20)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DpoConfig(beta=1.0), 1.0),  # 40 tokens gain 0.1 each, 10 lose 0.3: 4 - 3
        (KtoConfig(beta=1.0), 1.0),
        (DpoConfig(beta=1.0, loss_type=("sigmoid", "sft")), 1.0),
        (DpoConfig(beta=1.0, loss_type="ipo"), -0.2),
        (DpoConfig(beta=1.0, loss_type=("sigmoid_norm", "sft")), -0.2),
    ],
)
def test_the_reward_is_the_one_that_the_loss_compares(config: DpoConfig | KtoConfig, expected: float) -> None:
    measured = figures({"model": pairs(-1.0, -1.0)}, {"model": pairs(-0.9, -0.7)}, config)
    assert measured["reward_margin_after"] == pytest.approx(expected)


def test_equal_replies_and_an_untrained_model_are_ties() -> None:
    same = {"model": pairs(-1.0, -1.0)}
    measured = preference_measurements(same, same, DpoConfig())
    assert {item.name: item.value for item in measured} == {
        "preference_rate_before": 0.5,
        "preference_rate_after": 0.5,
        "preference_rate_gain": 0.0,
        "reward_accuracy_after": 0.5,
        "reward_margin_after": 0.0,
    }
    assert all(item.low is not None and math.isfinite(item.low) for item in measured)
