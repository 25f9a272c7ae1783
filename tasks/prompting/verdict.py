"""The verdict: scores of the prompting baselines in, one of four answers with its reasons out. Pure; no clock, no files.

A baseline is enough only when the lower end of its interval reaches the target. The best of several baselines looks better
than it is, so every interval is widened by their number (Bonferroni). The answer ``FINE_TUNE`` needs two things: the best
baseline falls short of the target, and the frozen examples are enough to show what training gains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import pandas as pd

from tasks.contracts.evaluation import PromptingScore, PromptingVerdict
from tasks.contracts.measurement import Measurement
from tasks.measures.metrics import METRICS
from tasks.prompting.config import FitConfig
from tasks.stats.bootstrap import Interval, Values
from tasks.stats.estimates import mean_difference, mean_score

BASE, RETRIEVAL = "base", "retrieval"
_POWER = 0.8
_NAMES = {
    "base": "the base model with the rows' own prompts",
    "prompt": "the base model with the configured prompt",
    "few-shot": "the base model with examples in the prompt",
    "retrieval": "the base model with retrieved passages",
}
USUAL_SCATTER = 0.30 * math.sqrt(2 * (1 - 0.6))
"""Standard deviation of the difference between two models' scores on an example, for metrics that are shares: each scatters
by about .30, and they correlate by about .6."""


def decide(
    arms: Mapping[str, pd.Series[Any]], metric: str, config: FitConfig, *, num_train_rows: int, num_examples: int
) -> PromptingVerdict:
    """Whether training is worthwhile, and why.

    Args:
        arms: Scores by example id of every baseline: ``base`` and any of ``prompt``, ``few-shot``, ``retrieval``. They are
            compared on the examples that all were measured on. Empty: nothing was measured, and only sizes are checked.
        metric: The metric of the scores.
        config: The target, and the confidence of the verdict.
        num_train_rows: Rows to train on.
        num_examples: Frozen examples that trained models are compared on.

    Returns:
        The verdict, which holds None when nothing was measured and the data are large enough.
    """
    frame = pd.DataFrame(dict(arms)).astype(float).dropna().sort_index()
    measured = [_measure(frame, name, metric, config) for name in arms] if len(frame) >= 2 else []
    effect = _detectable_effect(frame, metric, num_examples, config)
    shortages, more = _shortages(num_train_rows, num_examples, len(frame) if arms else None, effect, metric, config)
    verdict, reasons, remedies = _decide(frame, measured, metric, effect, config)
    if shortages and (verdict is None or verdict == "FINE_TUNE" or _too_few(frame, config)):
        verdict, reasons, remedies = "NOT_ENOUGH_DATA", [*shortages, *reasons], [*more, *remedies]
    if verdict is None and not measured:
        reasons = ["No prompting baseline was measured."]
        remedies = ["fit.enabled with a fit.target measures them before training."]
    return PromptingVerdict(
        verdict=verdict,
        metric=metric,
        target=config.target,
        arms=tuple(measured),
        num_train_rows=num_train_rows,
        num_examples=num_examples,
        minimum_detectable_effect=effect,
        reasons=tuple(reasons),
        remedies=tuple(dict.fromkeys(remedies)),
    )


Verdict = Literal["FINE_TUNE", "PROMPT_IS_ENOUGH", "RAG_FIRST", "NOT_ENOUGH_DATA"]


def _decide(
    frame: pd.DataFrame, measured: list[PromptingScore], metric: str, effect: float | None, config: FitConfig
) -> tuple[Verdict | None, list[str], list[str]]:
    """The verdict on the scores alone."""
    if not measured or config.target is None:
        return None, [], []
    sign = _sign(metric)
    prompted = [arm for arm in measured if arm.arm != RETRIEVAL]
    best = max(prompted, key=lambda arm: sign * _value(arm))
    enough = [arm for arm in prompted if arm.reaches_target]
    retrieval = next((arm for arm in measured if arm.arm == RETRIEVAL), None)
    facts = [_fact(arm, metric, config) for arm in measured]
    if enough:
        chosen = max(enough, key=lambda arm: sign * _value(arm))
        summary = "Nothing has to change" if chosen.arm == BASE else "A prompt is enough"
        return (
            "PROMPT_IS_ENOUGH",
            [f"{summary}: {_NAMES[chosen.arm]} reaches the target of {config.target:g} in {metric}.", *facts],
            [f"A target above {_value(chosen):.3f}, if this score is not good enough."],
        )
    if retrieval is not None:
        better, worse = (RETRIEVAL, best.arm) if sign > 0 else (best.arm, RETRIEVAL)
        lead = mean_difference(_scores(frame, better), _scores(frame, worse), **_settings(config, len(measured)))
        if retrieval.reaches_target or (lead.low > 0 and lead.estimate >= config.min_effect):
            reason = (
                f"reaches the target of {config.target:g} in {metric}"
                if retrieval.reaches_target
                else f"gains {lead.estimate:.3f} in {metric} ({_level(config, len(measured))} interval {lead.low:.3f} to "
                f"{lead.high:.3f}) over {_NAMES[best.arm]}"
            )
            return (
                "RAG_FIRST",
                [f"The model lacks knowledge, not skill: {_NAMES[RETRIEVAL]} {reason}.", *facts],
                ["Serve with retrieval, use its prompts in the rows, and measure again."],
            )
    top = max(measured, key=lambda arm: sign * _value(arm))
    gap = sign * (config.target - _value(top))
    low, high = top.score.low, top.score.high
    within = low is not None and high is not None and low <= config.target <= high
    if within and gap < config.min_effect:
        scatter = float(frame[top.arm].std(ddof=1))
        needed = math.ceil((_z(config, len(measured)) * scatter / max(abs(gap), config.min_effect / 2)) ** 2)
        return (
            "NOT_ENOUGH_DATA",
            [f"Whether {_NAMES[top.arm]} reaches the target of {config.target:g} in {metric} is not decided.", *facts],
            [f"About {max(needed, len(frame) + 1):,} frozen examples would decide it ({len(frame):,} were measured)."],
        )
    return (
        "FINE_TUNE",
        [f"The best baseline, {_NAMES[top.arm]}, falls short of the target of {config.target:g} in {metric}.", *facts],
        [f"A target of {_value(top):.3f} or less, a better fit.prompt, or more to retrieve from."],
    )


def _shortages(
    num_train_rows: int, num_examples: int, num_measured: int | None, effect: float | None, metric: str, config: FitConfig
) -> tuple[list[str], list[str]]:
    """What there is too little of, and what would help."""
    shortages, remedies = [], []
    if num_train_rows < config.min_train_rows:
        shortages.append(f"{num_train_rows:,} rows to train on; at least {config.min_train_rows:,} are required.")
        remedies.append("More rows to train on, or a lower fit.min_train_rows.")
    compared = num_examples if num_measured is None else min(num_measured, num_examples)
    if compared < config.min_examples:
        shortages.append(f"{compared:,} frozen examples; at least {config.min_examples:,} are required.")
        remedies.append("A larger frozen set, or a lower fit.min_examples.")
    if effect is not None and effect > config.min_effect:
        needed = math.ceil(num_examples * (effect / config.min_effect) ** 2)
        shortages.append(
            f"{num_examples:,} frozen examples show a gain of {effect:.3f} in {metric} 4 times in 5, but no gain of "
            f"{config.min_effect:g}."
        )
        remedies.append(
            f"About {needed:,} frozen examples would show {config.min_effect:g}; a larger fit.min_effect needs fewer."
        )
    return shortages, remedies


def _too_few(frame: pd.DataFrame, config: FitConfig) -> bool:
    return len(frame) < config.min_examples


def _measure(frame: pd.DataFrame, name: str, metric: str, config: FitConfig) -> PromptingScore:
    """One baseline: its mean, its gain over the base, and whether it is proven to reach the target."""
    num_arms, size = len(frame.columns), len(frame)
    score = mean_score(_scores(frame, name), **_settings(config, num_arms))
    gain = (
        None if name == BASE else mean_difference(_scores(frame, name), _scores(frame, BASE), **_settings(config, num_arms))
    )
    worst = score.low if _sign(metric) > 0 else -score.high
    return PromptingScore(
        arm=name,
        score=_measurement(metric, score, size),
        gain=None if gain is None else _measurement(metric, gain, size),
        reaches_target=config.target is not None and size >= config.min_examples and worst >= _sign(metric) * config.target,
    )


def _measurement(metric: str, interval: Interval, num_rows: int) -> Measurement:
    return Measurement(name=metric, value=interval.estimate, low=interval.low, high=interval.high, num_samples=num_rows)


def _detectable_effect(frame: pd.DataFrame, metric: str, num_examples: int, config: FitConfig) -> float | None:
    """The gain that the gate would find 4 times in 5 on ``num_examples``; None where the scatter is unknown.

    The scatter is the largest between a baseline and the base, and no less than the usual one where that is known: baselines
    that all fail alike do not scatter, but a trained model would.
    """
    others = [name for name in frame.columns if name != BASE] if len(frame) >= 2 else []
    scatters = [float((frame[name] - frame[BASE]).std(ddof=1)) for name in others]
    if METRICS[metric].unit == "share":
        scatters.append(USUAL_SCATTER)
    if not scatters or num_examples < 1:
        return None
    return _z(config, 1) * max(scatters) / math.sqrt(num_examples)


def _z(config: FitConfig, num_arms: int) -> float:
    normal = NormalDist()
    return normal.inv_cdf(1 - _tails(config, num_arms) / 2) + normal.inv_cdf(_POWER)


def _scores(frame: pd.DataFrame, name: str) -> Values:
    return frame[name].to_numpy(dtype=np.float64)


def _settings(config: FitConfig, num_arms: int) -> dict[str, Any]:
    """The settings of every interval; several baselines share the level."""
    return {"confidence": 1 - _tails(config, num_arms), "num_resamples": config.num_resamples, "seed": config.seed}


def _tails(config: FitConfig, num_arms: int) -> float:
    """Both tails of an interval, shared among the baselines."""
    return (1 - config.confidence) / num_arms


def _level(config: FitConfig, num_arms: int) -> str:
    return f"{1 - _tails(config, num_arms):.1%}"


def _fact(arm: PromptingScore, metric: str, config: FitConfig) -> str:
    score, name = arm.score, _NAMES[arm.arm]
    return (
        f"{name[0].upper()}{name[1:]}: {metric} {score.value:.3f} ({score.low:.3f} to {score.high:.3f}) on "
        f"{score.num_samples:,} examples."
    )


def _value(arm: PromptingScore) -> float:
    assert arm.score.value is not None
    return arm.score.value


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].higher_is_better else -1
