"""The verdict by simulation: it is seldom wrong, says what it rests on, and mirrors with the metric's direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.contracts.evaluation import PromptingVerdict
from tasks.prompting.config import FitConfig
from tasks.prompting.verdict import USUAL_SCATTER, decide

CONFIG = FitConfig(enabled=True, target=0.7, num_resamples=1000)


def scores(generator: np.random.Generator, num_examples: int, **means: float) -> dict[str, pd.Series[Any]]:
    """Scores of baselines on the same examples: standard deviation .30, correlation .6."""
    shared = generator.normal(0, 0.30 * np.sqrt(0.6), num_examples)
    index = pd.Index([f"row-{number:05d}" for number in range(num_examples)], name="id")
    return {
        name.replace("_", "-"): pd.Series(mean + shared + generator.normal(0, 0.30 * np.sqrt(0.4), num_examples), index)
        for name, mean in means.items()
    }


def verdict_on(arms: dict[str, pd.Series[Any]], config: FitConfig = CONFIG, num_train_rows: int = 500) -> PromptingVerdict:
    return decide(arms, "chrf", config, num_train_rows=num_train_rows, num_examples=len(next(iter(arms.values()))))


def rate(verdict: str, trials: int, num_examples: int, **means: float) -> float:
    generator = np.random.default_rng(11)
    return float(np.mean([verdict_on(scores(generator, num_examples, **means)).verdict == verdict for _ in range(trials)]))


def test_baselines_that_fall_short_seldom_count_as_enough_however_many_are_tried() -> None:
    short = {"base": 0.69, "prompt": 0.69, "few_shot": 0.69, "retrieval": 0.69}
    assert sum(rate(verdict, 50, 100, **short) for verdict in ("PROMPT_IS_ENOUGH", "RAG_FIRST")) <= 0.05


def test_a_wide_gap_is_trained_for_and_a_prompt_that_does_it_is_enough() -> None:
    assert rate("FINE_TUNE", 20, 200, base=0.3, prompt=0.4, few_shot=0.45) >= 0.95
    assert rate("PROMPT_IS_ENOUGH", 20, 200, base=0.3, prompt=0.8, few_shot=0.45) >= 0.95
    assert rate("PROMPT_IS_ENOUGH", 20, 200, base=0.8) >= 0.95


def test_retrieval_comes_first_when_it_reaches_the_target_or_leads_by_what_training_would_have_to_gain() -> None:
    assert rate("RAG_FIRST", 20, 200, base=0.3, few_shot=0.4, retrieval=0.8) >= 0.95
    assert rate("RAG_FIRST", 20, 200, base=0.3, few_shot=0.3, retrieval=0.5) >= 0.95
    assert rate("FINE_TUNE", 20, 200, base=0.3, few_shot=0.45, retrieval=0.46) >= 0.95
    assert rate("PROMPT_IS_ENOUGH", 20, 200, base=0.3, few_shot=0.8, retrieval=0.9) >= 0.95, "the cheaper way that does it"


def test_too_few_examples_leave_the_verdict_open() -> None:
    verdict = verdict_on(scores(np.random.default_rng(1), 200, base=0.3, prompt=0.7))
    assert verdict.verdict == "NOT_ENOUGH_DATA"
    assert not any(arm.reaches_target for arm in verdict.arms)
    assert "200" in verdict.remedies[0]


def test_too_few_examples_or_rows_outweigh_any_wish_to_train() -> None:
    generator = np.random.default_rng(2)
    few = verdict_on(scores(generator, 20, base=0.3, prompt=0.95))
    assert few.verdict == "NOT_ENOUGH_DATA"
    assert few.reasons[0].startswith("20 frozen examples")
    assert not any(arm.reaches_target for arm in few.arms), "twenty examples are not believed"
    rows = verdict_on(scores(generator, 200, base=0.3, prompt=0.4), num_train_rows=49)
    assert rows.verdict == "NOT_ENOUGH_DATA"
    assert rows.reasons[0].startswith("49 rows to train on")
    enough = verdict_on(scores(generator, 200, base=0.3, prompt=0.9), num_train_rows=49)
    assert enough.verdict == "PROMPT_IS_ENOUGH", "what needs no training needs no rows"


@pytest.mark.parametrize(
    ("num_examples", "verdict"), [(32, "NOT_ENOUGH_DATA"), (56, "NOT_ENOUGH_DATA"), (58, None), (200, None)]
)
def test_sizes_alone_are_checked_when_nothing_was_measured(num_examples: int, verdict: str | None) -> None:
    decided = decide({}, "chrf", FitConfig(), num_train_rows=500, num_examples=num_examples)
    assert decided.verdict == verdict
    assert decided.minimum_detectable_effect == pytest.approx(2.8016 * USUAL_SCATTER / np.sqrt(num_examples), rel=1e-3)
    assert (decided.reasons[-1] if verdict is None else decided.remedies[-1]) != ""


def test_baselines_that_all_fail_alike_do_not_make_few_examples_enough() -> None:
    nothing = pd.Series(np.zeros(40), [f"row-{number:02d}" for number in range(40)])
    verdict = verdict_on({"base": nothing, "few-shot": nothing})
    assert verdict.verdict == "NOT_ENOUGH_DATA"
    assert verdict.minimum_detectable_effect == pytest.approx(0.119, abs=0.001)


def test_no_scatter_is_made_up_for_a_metric_without_a_usual_one() -> None:
    verdict = decide({}, "nll", FitConfig(), num_train_rows=500, num_examples=40)
    assert (verdict.verdict, verdict.minimum_detectable_effect) == (None, None)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), level=st.floats(0.2, 1.0), num_examples=st.integers(5, 120))
def test_a_metric_where_lower_is_better_mirrors_the_verdict(seed: int, level: float, num_examples: int) -> None:
    arms = scores(np.random.default_rng(seed), num_examples, base=0.4, few_shot=level, retrieval=1.2 - level)
    sizes = {"num_train_rows": 500, "num_examples": num_examples}
    higher = decide(arms, "chrf", CONFIG, **sizes)
    turned = CONFIG.model_copy(update={"target": -0.7})
    lower = decide({name: -values for name, values in arms.items()}, "nll", turned, **sizes)
    assert lower.verdict == higher.verdict
    assert [arm.reaches_target for arm in lower.arms] == [arm.reaches_target for arm in higher.arms]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), num_arms=st.integers(1, 4))
def test_order_of_arms_and_examples_changes_nothing_but_the_order_of_arms(seed: int, num_arms: int) -> None:
    means = dict(list({"base": 0.3, "prompt": 0.6, "few_shot": 0.72, "retrieval": 0.75}.items())[:num_arms])
    arms = scores(np.random.default_rng(seed), 60, **means)
    shuffled = {name: arms[name].sample(frac=1, random_state=seed) for name in reversed(arms)}
    straight, mixed = verdict_on(arms), verdict_on(shuffled)
    assert straight.verdict == mixed.verdict
    assert sorted(straight.arms, key=lambda arm: arm.arm) == sorted(mixed.arms, key=lambda arm: arm.arm)


def test_only_examples_that_all_baselines_were_measured_on_are_compared() -> None:
    arms = scores(np.random.default_rng(3), 200, base=0.3, prompt=0.4)
    arms["prompt"] = arms["prompt"].iloc[:80]
    verdict = verdict_on(arms)
    assert {arm.score.num_samples for arm in verdict.arms} == {80}
    gain = verdict.arms[1].gain
    assert gain is not None
    assert gain.value == pytest.approx(float((arms["prompt"] - arms["base"].iloc[:80]).mean()))
    assert verdict.num_examples == 200


def test_a_measurement_needs_a_target() -> None:
    with pytest.raises(ValueError, match=r"fit\.enabled needs fit\.target"):
        FitConfig(enabled=True)
