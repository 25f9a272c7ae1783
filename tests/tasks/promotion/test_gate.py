"""The gate proves what it says: simulated error rates, mirrored verdicts, and a reason for every answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tasks.contracts.evaluation import PromotionDecision
from tasks.core.errors import IntegrityError
from tasks.promotion.config import GuardConfig, PromotionConfig
from tasks.promotion.gate import decide

FAST = PromotionConfig(num_resamples=1000, guards=(), max_retention_loss=None)
REFRESH = FAST.model_copy(update={"policy": "refresh", "refresh_margin": 0.1})
"""A margin so wide that the old rows stop hardly anyone: it is the fresh rows that must."""


def frame(values: np.ndarray[Any, Any], **columns: Any) -> pd.DataFrame:
    index = pd.Index([f"row-{number:06d}" for number in range(len(values))], name="id")
    return pd.DataFrame({"chrf": values, **columns}, index=index)


def correlated_scores(generator: np.random.Generator, num_examples: int, gain: float) -> tuple[Any, Any]:
    """Scores of two models on the same rows: standard deviation .30, correlation .6, mean difference ``gain``."""
    shared = generator.normal(0, 0.30 * np.sqrt(0.6), num_examples)
    own = generator.normal(0, 0.30 * np.sqrt(0.4), (2, num_examples))
    return 0.5 + gain + shared + own[0], 0.5 + shared + own[1]


def binary_scores(generator: np.random.Generator, num_examples: int, gain: float) -> tuple[Any, Any]:
    """Right or wrong answers of two models of which a fifth differ."""
    differ = generator.random(num_examples) < 0.20
    wins = generator.random(num_examples) < 0.5 + gain / 0.4
    other = (generator.random(num_examples) < 0.7).astype(float)
    candidate = np.where(differ, wins.astype(float), other)
    return candidate, np.where(differ, 1 - candidate, other)


Scores = Callable[[np.random.Generator, int, float], tuple[Any, Any]]


def promotion_rate(
    scores: Scores, num_examples: int, gain: float, trials: int, config: PromotionConfig, fresh_gain: float | None = None
) -> float:
    generator = np.random.default_rng(20)
    promoted = 0
    for _ in range(trials):
        candidate, opponent = scores(generator, num_examples, gain)
        if config.policy == "improve":  # the same rule against both opponents, so one will do
            decision = decide({"base": frame(opponent), "candidate": frame(candidate)}, config)
        else:
            arms = {"candidate": frame(candidate), "champion": frame(opponent)}  # the base model is beaten, say
            newer, older = scores(generator, num_examples, gain if fresh_gain is None else fresh_gain)
            fresh = {"candidate": frame(newer), "champion": frame(older)}
            decision = decide(arms, config, champion_version="1", fresh=fresh)
        promoted += decision.outcome == "PROMOTE"
    return promoted / trials


@pytest.mark.parametrize("config", [FAST, REFRESH], ids=["improve", "refresh"])
@pytest.mark.parametrize("scores", [correlated_scores, binary_scores])
@pytest.mark.parametrize(("gain", "limit"), [(0.0, 0.05), (-0.02, 0.01)])
def test_false_promotions_are_rare(config: PromotionConfig, scores: Scores, gain: float, limit: float) -> None:
    assert promotion_rate(scores, 200, gain, 400, config) <= limit


@pytest.mark.slow
@pytest.mark.parametrize("scores", [correlated_scores, binary_scores])
@pytest.mark.parametrize("config", [FAST, REFRESH], ids=["improve", "refresh"])
@pytest.mark.parametrize("num_examples", [200, 1000])
@pytest.mark.parametrize(("gain", "limit"), [(0.0, 0.05), (-0.02, 0.01)])
def test_false_promotions_are_rare_in_many_trials(
    config: PromotionConfig, scores: Scores, num_examples: int, gain: float, limit: float
) -> None:
    assert promotion_rate(scores, num_examples, gain, 1000, config) <= limit


def test_a_bare_mean_would_have_promoted_half_of_the_identical_models() -> None:
    generator = np.random.default_rng(20)
    pairs = [correlated_scores(generator, 200, 0.0) for _ in range(300)]
    assert 0.4 < np.mean([candidate.mean() > champion.mean() for candidate, champion in pairs]) < 0.6


@pytest.mark.parametrize("scores", [correlated_scores, binary_scores])
def test_the_stated_detectable_effect_is_detected_four_times_in_five(scores: Scores) -> None:
    candidate, champion = scores(np.random.default_rng(0), 5000, 0.0)
    effect = decide({"base": frame(champion), "candidate": frame(candidate)}, FAST).minimum_detectable_effect
    assert effect is not None
    at_400 = effect * np.sqrt(5000 / 400)
    assert 0.72 <= promotion_rate(scores, 400, at_400, 200, FAST) <= 0.88


def test_refresh_promotes_what_learned_the_new_rows_and_lost_nothing_on_the_old() -> None:
    refresh = FAST.model_copy(update={"policy": "refresh", "refresh_margin": 0.05})
    assert promotion_rate(correlated_scores, 500, 0.0, 50, FAST) < 0.06  # equal on the old rows
    assert promotion_rate(correlated_scores, 500, 0.0, 50, refresh, fresh_gain=0.1) > 0.85
    assert promotion_rate(correlated_scores, 500, -0.05, 100, refresh, fresh_gain=0.3) <= 0.05  # the margin's very edge


@pytest.mark.parametrize(
    ("arm", "num_cut", "outcome"), [("base", 11, "HOLD"), ("candidate", 11, "HOLD"), ("base", 10, "PROMOTE")]
)
def test_scores_of_shortened_questions_do_not_promote(arm: str, num_cut: int, outcome: str) -> None:
    arms = {name: table.head(200).assign(prompt_cut=0.0) for name, table in better().items()}
    arms[arm]["prompt_cut"] = np.arange(200) < num_cut
    decision = decide(arms, FAST)
    assert decision.outcome == outcome
    assert any("cut to fit the context" in reason for reason in decision.reasons) == (outcome == "HOLD")


def test_shortened_fresh_questions_are_counted_too() -> None:
    cut = {name: table.assign(prompt_cut=1.0) for name, table in better().items()}
    decision = decide(better(), FAST, fresh=cut)
    assert decision.outcome == "HOLD"
    assert "fresh examples were cut" in decision.reasons[0]


def test_without_enough_fresh_rows_a_refresh_is_held() -> None:
    arms = {**better(), "champion": better()["base"]}
    few = {name: table.head(30) for name, table in better().items()} | {"champion": better()["base"].head(30)}
    missing = decide(
        arms, REFRESH, champion_version="1", holdout_unavailable_reason="no row says when it was made (created_at)"
    )
    assert missing.outcome == "HOLD"
    assert "Only 0 fresh rows compare chrf with the champion (version 1) (no row says" in missing.reasons[-1]
    assert "Only 30 fresh rows" in decide(arms, REFRESH, champion_version="1", fresh=few).reasons[-1]
    assert decide(arms, FAST, champion_version="1").outcome == "PROMOTE"  # `improve` does not need them
    assert decide(better(), REFRESH).outcome == "PROMOTE"  # and without a champion no model has seen more


def refreshed(harm: float, num_rows: int, seed: int = 0) -> PromotionDecision:
    """Three labels of ``num_rows`` frozen rows each, equal but for ``harm`` on one; better on the fresh rows."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(["a", "b", "c"], num_rows)
    candidate, champion = correlated_scores(generator, len(labels), 0.0)
    candidate = candidate - np.where(labels == "b", harm, 0.0)
    newer, older = correlated_scores(generator, 200, 0.2)
    arms = {"base": frame(champion - 1, label=labels), "candidate": frame(candidate, label=labels)}
    arms["champion"] = frame(champion, label=labels)
    fresh = {"candidate": frame(newer), "champion": frame(older)}
    return decide(arms, REFRESH, champion_version="1", fresh=fresh)


def test_a_refresh_must_not_be_worse_on_any_old_slice() -> None:
    assert refreshed(0.0, 1000).outcome == "PROMOTE"
    assert refreshed(0.3, 200).outcome == "HOLD"
    inconclusive = refreshed(0.0, 70)
    assert inconclusive.outcome == "NEEDS_HUMAN"  # too few rows to tell
    assert any("may be worse than the champion (version 1) by more than 0.05" in reason for reason in inconclusive.reasons)
    at_the_edge = [refreshed(0.05, 400, seed).outcome == "PROMOTE" for seed in range(60)]
    assert np.mean(at_the_edge) <= 0.05


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), gain=st.floats(-0.2, 0.2), metric=st.sampled_from(["chrf", "nll"]))
def test_swapping_candidate_and_champion_mirrors_the_comparison(seed: int, gain: float, metric: str) -> None:
    values, other_values = correlated_scores(np.random.default_rng(seed), 200, gain)
    frames = [frame(values).rename(columns={"chrf": metric}) for values in (values, other_values)]
    base = frame(np.full(200, -5.0 if metric == "chrf" else 50.0)).rename(columns={"chrf": metric})
    config = FAST.model_copy(update={"primary_metric": metric})
    straight = decide({"base": base, "candidate": frames[0], "champion": frames[1]}, config, champion_version="1")
    swapped = decide({"base": base, "candidate": frames[1], "champion": frames[0]}, config, champion_version="1")
    ours, theirs = straight.comparisons[1], swapped.comparisons[1]
    assert ours.opponent == "champion"
    assert (ours.difference, ours.low, ours.high) == pytest.approx((-theirs.difference, -theirs.high, -theirs.low))
    proven_better = [decision.outcome == "PROMOTE" for decision in (straight, swapped)]
    assert not all(proven_better)
    higher_is_better = metric == "chrf"
    assert proven_better == [
        ours.low > 0 if higher_is_better else ours.high < 0,
        ours.high < 0 if higher_is_better else ours.low > 0,
    ]


def test_more_data_narrows_the_interval_on_average() -> None:
    generator = np.random.default_rng(1)
    widths = []
    for num_examples in (200, 400, 800, 1600):
        decisions = []
        for _ in range(20):
            candidate, base = correlated_scores(generator, num_examples, 0.1)
            decisions.append(decide({"base": frame(base), "candidate": frame(candidate)}, FAST))
        widths.append(np.mean([decision.comparisons[0].high - decision.comparisons[0].low for decision in decisions]))
    assert widths == sorted(widths, reverse=True)
    assert widths[0] / widths[2] == pytest.approx(2.0, rel=0.1)  # four times the data, half the width


def test_row_order_changes_nothing() -> None:
    candidate, base = correlated_scores(np.random.default_rng(1), 250, 0.05)
    one = decide({"base": frame(base), "candidate": frame(candidate)}, FAST)
    shuffled = decide({"base": frame(base).sample(frac=1, random_state=1), "candidate": frame(candidate)}, FAST)
    assert one == shuffled


# --------------------------------------------------------------------------------------------------------- the verdicts


def better(num_examples: int = 300, gain: float = 0.3, **columns: Any) -> dict[str, pd.DataFrame]:
    candidate, base = correlated_scores(np.random.default_rng(1), num_examples, gain)
    return {"base": frame(base, **columns), "candidate": frame(candidate, **columns)}


def test_the_first_candidate_must_beat_the_base_model() -> None:
    decision = decide(better(), FAST)
    assert decision.outcome == "PROMOTE"
    assert decision.champion_version is None
    [comparison] = [row for row in decision.comparisons if row.metric == "chrf"]
    assert comparison.passed
    assert comparison.low > 0
    assert "0.779" in decision.reasons[0]
    assert "0.463" in decision.reasons[0]
    assert decision.remedies == ()
    rejected = decide(better(gain=0.0), FAST)
    assert rejected.outcome == "HOLD"
    assert not next(row for row in rejected.comparisons if row.metric == "chrf").passed
    assert rejected.remedies


def test_a_worse_candidate_is_not_promoted() -> None:
    decision = decide(better(gain=-0.3), FAST)
    assert decision.outcome == "HOLD"
    assert next(row for row in decision.comparisons if row.metric == "chrf").high < 0
    assert decision.remedies


def test_too_few_examples_hold_even_a_clear_winner() -> None:
    decision = decide(better(num_examples=40), FAST)
    assert decision.outcome == "HOLD"
    assert "Only 40 examples" in decision.reasons[0]
    demo = decide(better(num_examples=40), FAST.model_copy(update={"min_examples": 30}))
    assert demo.outcome == "PROMOTE"


def test_the_number_of_examples_that_would_be_enough_is_named() -> None:
    candidate, base = correlated_scores(np.random.default_rng(3), 250, 0.02)
    decision = decide({"base": frame(base), "candidate": frame(candidate)}, FAST)
    assert decision.outcome == "HOLD"
    assert "250 were compared" in decision.remedies[0]


def test_a_model_that_is_champion_is_held() -> None:
    arms = better()
    arms["champion"] = arms["candidate"]
    decision = decide(arms, FAST, champion_version="7", is_champion=True)
    assert decision.outcome == "HOLD"
    assert "version 7" in decision.reasons[0]
    assert decision.champion_version == "7"


def test_an_unbenchmarked_champion_blocks() -> None:
    decision = decide(better(), FAST, champion_version="7")
    assert decision.outcome == "HOLD"
    assert "7" in decision.reasons[0]


def test_an_unmeasured_primary_metric_blocks() -> None:
    decision = decide(better(), FAST.model_copy(update={"primary_metric": "label_accuracy"}))
    assert decision.outcome == "HOLD"
    assert "Only 0 examples compare label_accuracy" in decision.reasons[0]


def test_rows_without_a_measurement_are_left_out_of_the_pairs() -> None:
    arms = better(num_examples=250)
    arms["base"].iloc[:30, 0] = None
    assert decide(arms, FAST).comparisons[0].num_examples == 220


def test_different_examples_are_refused() -> None:
    arms = better()
    with pytest.raises(IntegrityError, match="299 examples"):
        decide({"base": arms["base"].iloc[1:], "candidate": arms["candidate"]}, FAST)


# ----------------------------------------------------------------------------------------------------- guards and slices


def guarded(worsening: float, scatter: float, guard: GuardConfig) -> PromotionDecision:
    """A candidate that is better on chrf and worse by ``worsening`` on the guard's metric."""
    generator = np.random.default_rng(2)
    candidate, champion = correlated_scores(generator, 300, 0.3)
    cost = 1.0 + 0.2 * generator.random(300)
    noise = generator.normal(0, scatter, 300)
    arms = {
        "base": frame(champion - 1, **{guard.metric: cost}),
        "candidate": frame(candidate, **{guard.metric: cost + worsening + noise - noise.mean()}),
        "champion": frame(champion, **{guard.metric: cost}),
    }
    return decide(arms, FAST.model_copy(update={"guards": (guard,)}), champion_version="1")


NLL_GUARD = GuardConfig(metric="nll", max_worsening=0.05)


def test_a_guard_passes_is_inconclusive_or_is_violated() -> None:
    assert guarded(0.0, 0.05, NLL_GUARD).outcome == "PROMOTE"
    inconclusive = guarded(0.02, 0.6, NLL_GUARD)
    assert inconclusive.outcome == "NEEDS_HUMAN"
    assert "guard on nll is inconclusive" in inconclusive.reasons[-1]
    violated = guarded(0.2, 0.05, NLL_GUARD)
    assert violated.outcome == "HOLD"
    assert "guard on nll is violated" in violated.reasons[-1]


@pytest.mark.parametrize(
    ("num_examples", "base", "candidate", "outcome"),
    [
        (200, 0, 0, "PROMOTE"),
        (200, 0, 4, "PROMOTE"),  # within the margin, and no proven rise
        (200, 0, 5, "HOLD"),  # above the margin
        (1000, 0, 10, "HOLD"),  # within the margin, but proven
        (200, 40, 44, "PROMOTE"),  # both echo what stands in the questions
        (200, 40, 20, "PROMOTE"),
        (32, 0, 1, "PROMOTE"),  # a single reply of few
        (32, 0, 2, "HOLD"),
    ],
)
def test_a_rise_of_placeholders_holds(num_examples: int, base: int, candidate: int, outcome: str) -> None:
    arms = better(num_examples)
    for name, count in (("base", base), ("candidate", candidate)):
        arms[name]["placeholder_rate"] = (np.arange(num_examples) < count).astype(float)
    few = FAST.model_copy(update={"min_examples": 30})
    decision = decide(arms, few)
    assert decision.outcome == outcome
    assert any("placeholder of scrubbing" in reason for reason in decision.reasons) == (outcome == "HOLD")
    assert decide(arms, few.model_copy(update={"max_placeholder_increase": None})).outcome == "PROMOTE"


def test_placeholders_are_compared_with_the_champion_too() -> None:
    arms = better()
    arms["champion"] = arms["base"].copy()
    for name, count in (("base", 60), ("candidate", 60), ("champion", 0)):
        arms[name]["placeholder_rate"] = (np.arange(300) < count).astype(float)
    decision = decide(arms, FAST, champion_version="3")
    assert decision.outcome == "HOLD"
    assert "of the champion (version 3)" in decision.reasons[-1]


def test_a_guard_on_a_share_looks_in_the_other_direction() -> None:
    guard = GuardConfig(metric="completed", max_worsening=0.05)
    assert guarded(0.2, 0.05, guard).outcome == "PROMOTE"  # more completed replies are no harm
    assert guarded(-0.2, 0.05, guard).outcome == "HOLD"


@pytest.mark.parametrize(("statistic", "words"), [("mean_ratio", "mean tokens_out"), ("p95_ratio", "p95 of tokens_out")])
def test_a_guard_on_the_cost_of_a_reply_compares_ratios(statistic: Any, words: str) -> None:
    guard = GuardConfig(metric="tokens_out", statistic=statistic, max_worsening=0.2)
    assert guarded(0.1, 0.001, guard).outcome == "PROMOTE"
    assert guarded(-0.5, 0.001, guard).outcome == "PROMOTE"  # cheaper is no harm
    violated = guarded(0.6, 0.001, guard)
    assert violated.outcome == "HOLD"
    assert f"guard on {words} is violated" in violated.reasons[-1]


def test_no_default_guard_reads_a_clock() -> None:
    assert {guard.metric for guard in PromotionConfig().all_guards} == {
        "nll",
        "length_error",
        "tokens_out",
        "tokens_in",
        "retention",
    }
    assert PromotionConfig().max_latency_increase is None


@pytest.mark.parametrize("metric", ["latency_seconds", "latency_p95_seconds", "cost_per_1000", "tokens_per_second"])
def test_what_a_clock_measures_is_neither_guarded_nor_the_primary_metric(metric: str) -> None:
    for make in (lambda: GuardConfig(metric=metric, max_worsening=0.2), lambda: PromotionConfig(primary_metric=metric)):
        with pytest.raises(ValidationError, match=r"compared example by example|measured by a clock"):
            make()
    with pytest.raises(ValidationError, match=r"promotion\.max_latency_increase"):
        GuardConfig(metric="latency_seconds", statistic="p95_ratio", max_worsening=0.2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_scrambled_clocks_change_no_decision(seed: int) -> None:
    """Tables as an older release wrote them, with times in them: whatever these say, the decision is the same."""
    generator = np.random.default_rng(seed)
    config = PromotionConfig(num_resamples=1000, max_retention_loss=None)

    def timed(arms: dict[str, pd.DataFrame], scale: float) -> PromotionDecision:
        scrambled = {
            name: table.assign(
                nll=1.0,
                length_error=0.1,
                tokens_out=50.0,
                tokens_in=20.0,
                latency_seconds=generator.lognormal(0, scale, len(table)),
                cost_per_1000=generator.lognormal(0, scale, len(table)),
            )
            for name, table in arms.items()
        }
        return decide(scrambled, config, champion_version="1")

    arms = {**better(), "champion": better()["base"]}
    first = timed(arms, 0.0)
    assert first.outcome == "PROMOTE"
    assert timed(arms, 5.0) == first


def test_a_guard_that_was_not_measured_asks_a_person() -> None:
    arms = better()
    arms["champion"] = arms["base"]
    decision = decide(arms, FAST.model_copy(update={"guards": (NLL_GUARD,)}), champion_version="1")
    assert decision.outcome == "NEEDS_HUMAN"
    assert "could not be measured" in decision.reasons[-1]


def forgetful(loss: float, scatter: float) -> dict[str, pd.DataFrame]:
    """Base and candidate on 72 general questions; the candidate is worse by ``loss``, more or less."""
    noise = np.random.default_rng(3).normal(0, scatter, 72)
    questions = pd.Index([f"question-{number}" for number in range(72)], name="id")
    scores = {"base": np.full(72, 0.8), "candidate": 0.8 - loss + noise - noise.mean()}
    return {name: pd.DataFrame({"retention": values}, index=questions) for name, values in scores.items()}


@pytest.mark.parametrize(
    ("general", "outcome", "words"),
    [
        (forgetful(0.02, 0.1), "PROMOTE", "Better than"),
        (forgetful(0.09, 0.3), "NEEDS_HUMAN", "guard on retention is inconclusive"),
        (forgetful(0.3, 0.1), "HOLD", "guard on retention is violated"),
        ({}, "NEEDS_HUMAN", "retention could not be measured"),
        ({"base": forgetful(0.0, 0.1)["base"]}, "NEEDS_HUMAN", "retention could not be measured"),
    ],
)
def test_a_candidate_that_forgot_general_knowledge_is_not_promoted(general: Any, outcome: str, words: str) -> None:
    decision = decide(better(), FAST.model_copy(update={"max_retention_loss": 0.1}), general=general)
    assert decision.outcome == outcome
    assert words in decision.reasons[-1]


def test_guards_against_the_champion_rest_while_none_reigns() -> None:
    assert decide(better(), FAST.model_copy(update={"guards": (NLL_GUARD,)})).outcome == "PROMOTE"


def sliced(num_labels: int, harm: float, seed: int = 0) -> PromotionDecision:
    """Labels of 60 rows each; the candidate gains .1 everywhere, and loses ``harm`` on the first label."""
    generator = np.random.default_rng(seed)
    labels = np.repeat([f"label-{number:02d}" for number in range(num_labels)], 60)
    candidate, base = correlated_scores(generator, len(labels), 0.1)
    candidate = candidate - np.where(labels == "label-00", harm + 0.1 * (harm > 0), 0.0)
    return decide({"base": frame(base, label=labels), "candidate": frame(candidate, label=labels)}, FAST)


def test_harm_to_one_label_blocks_and_chance_does_not() -> None:
    assert sliced(8, 0.0).outcome == "PROMOTE"
    decision = sliced(8, 0.4)
    assert decision.outcome == "HOLD"
    assert "On label 'label-00' the candidate is worse" in decision.reasons[-1]
    assert any("slice" in comparison.rule and not comparison.passed for comparison in decision.comparisons)


def test_many_equal_labels_raise_few_false_alarms() -> None:
    def equal_on_all_labels(seed: int) -> PromotionDecision:
        generator = np.random.default_rng(seed)
        labels = np.repeat([f"label-{number:02d}" for number in range(40)], 60)
        candidate, base = correlated_scores(generator, len(labels), 0.0)
        return decide({"base": frame(base, label=labels), "candidate": frame(candidate, label=labels)}, FAST)

    alarms = sum(any("On label" in reason for reason in equal_on_all_labels(seed).reasons) for seed in range(20))
    assert alarms <= 3


def test_small_labels_are_not_judged_alone() -> None:
    labels = ["rare"] * 40 + ["common"] * 260
    candidate, base = correlated_scores(np.random.default_rng(0), 300, 0.4)
    candidate[:40] -= 1.0
    decision = decide({"base": frame(base, label=labels), "candidate": frame(candidate, label=labels)}, FAST)
    assert [row.metric for row in decision.comparisons if "slice" in row.rule] == ["chrf[common]"]


@pytest.mark.parametrize("slice_by", [("label",), ("label", "group")])
def test_harm_to_a_group_blocks_where_the_configuration_slices_by_it(slice_by: tuple[str, ...]) -> None:
    candidate, base = correlated_scores(np.random.default_rng(0), 300, 0.3)
    candidate[:60] -= 0.7
    slices = [[{"dimension": "group", "value": f"region: {'apac' if row < 60 else 'emea'}"}] for row in range(300)]
    arms = {"base": frame(base, slices=slices), "candidate": frame(candidate, slices=slices)}
    decision = decide(arms, FAST.model_copy(update={"slice_by": slice_by}))
    assert decision.outcome == ("PROMOTE" if slice_by == ("label",) else "HOLD")
    assert ("On group 'region: apac' the candidate is worse" in decision.reasons[-1]) == ("group" in slice_by)


def test_unknown_metrics_are_refused_by_the_configuration() -> None:
    with pytest.raises(ValueError, match="choose one of chrf"):
        PromotionConfig(primary_metric="rougeL")
    with pytest.raises(ValueError, match="no metric that is compared"):
        GuardConfig(metric="perplexity", max_worsening=0.1)
