"""The gate: paired per-example scores in, a decision with its reasons out. Pure; no clock, no files.

Means are never compared bare: with a per-row standard deviation of .30 and a correlation of .6, a bare mean over 50 rows
promotes an identical model every second time. Every rule uses the confidence interval of the paired difference between the
candidate and one opponent on the same examples.

All "must" rules are an intersection. Each has to hold at the full level, so passing several needs no correction; that each
old slice is not inferior, for policy ``refresh``, is such a rule. Slices are also the reverse, a search for harm in many
places at once, and as such are corrected (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import pandas as pd

from tasks.contracts.evaluation import Comparison, LatencyRounds, PromotionDecision
from tasks.core.errors import IntegrityError
from tasks.measures.metrics import METRICS
from tasks.promotion.config import GuardConfig, PromotionConfig
from tasks.promotion.differences import difference, mean_ratio, p95_ratio, p_no_harm
from tasks.promotion.guard_result import GuardResult
from tasks.promotion.latency import check_latency
from tasks.promotion.placeholders import METRIC, check_placeholders
from tasks.promotion.safety import Failures, check_rate
from tasks.stats.bootstrap import Interval, Values
from tasks.stats.intervals import two_sided_quantile

Slice = tuple[str, str]
"""A dimension such as ``label``, and its value."""

_COMPARED = {"mean": difference, "mean_ratio": mean_ratio, "p95_ratio": p95_ratio}
_NAMED = {"mean": "{}", "mean_ratio": "mean {}", "p95_ratio": "p95 of {}"}
_POWER = 0.8
_MAX_SLICES_SHOWN = 10


@dataclass
class _Findings:
    """The results of the rules so far."""

    comparisons: list[Comparison] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    remedies: list[str] = field(default_factory=list)
    blocked: bool = False
    inconclusive: bool = False

    def block(self, reason: str, *remedies: str) -> None:
        """Adds a reason that forbids promotion."""
        self.blocked = True
        self.reasons.append(reason)
        self.remedies.extend(remedies)

    def leave_open(self, reason: str, *remedies: str) -> None:
        """Adds a reason for which a person has to decide."""
        self.inconclusive = True
        self.reasons.append(reason)
        self.remedies.extend(remedies)

    def add(self, result: GuardResult) -> None:
        """Adds the result of one guard."""
        if result.comparison is not None:
            self.comparisons.append(result.comparison)
        self.blocked |= result.state == "violated"
        self.inconclusive |= result.state == "inconclusive"
        self.reasons += [result.reason] if result.reason else []
        self.remedies += [result.remedy] if result.remedy else []


def decide(
    arms: Mapping[str, pd.DataFrame],
    config: PromotionConfig,
    *,
    champion_version: str | None = None,
    is_champion: bool = False,
    attacks: Mapping[str, Mapping[str, Failures]] | None = None,
    general: Mapping[str, pd.DataFrame] | None = None,
    fresh: Mapping[str, pd.DataFrame] | None = None,
    holdout_unavailable_reason: str = "",
    latency: LatencyRounds | None = None,
) -> PromotionDecision:
    """The decision on ``candidate``; swapping two models mirrors every primary comparison.

    Args:
        arms: Per-example scores by arm: ``base``, ``candidate`` and, when there is one, ``champion``. One row per example,
            indexed by example id in any order, with a column per metric (null where not measured) and ``label``.
        config: What must be proven.
        champion_version: The champion's version, kept in the decision: promotion compares and sets against it.
        is_champion: Whether the candidate is the champion itself.
        attacks: The results of the red team, by arm, rate and probe; None when it is off, and its guards do not apply.
        general: The same scores on general questions, which some guards use; without them those are inconclusive.
        fresh: The same scores on the fresh rows, on which policy ``refresh`` requires an improvement.
        holdout_unavailable_reason: Why there are none.
        latency: The candidate and its opponent timed in turns, where a guard on latency is configured. It does not apply
            while there is no champion to be slower than.

    Returns:
        ``PROMOTE`` when every rule holds; ``HOLD`` when one is violated or superiority is not proven; ``NEEDS_HUMAN`` when
        superiority is proven and nothing is violated, but a guard is inconclusive on these examples.

    Raises:
        IntegrityError: The arms answered different examples.
    """
    arms = {name: frame.sort_index() for name, frame in arms.items()}
    _check_same_examples(arms)
    fresh = {name: frame.sort_index() for name, frame in (fresh or {}).items()}
    if fresh:
        _check_same_examples(fresh)
    names = {"base": "the base model", "champion": f"the champion (version {champion_version})"}
    opponents = [name for name in ("base", "champion") if name in arms]
    findings = _Findings()
    if is_champion:
        findings.block(f"This model is already the champion, version {champion_version}; there is nothing to promote.")
    if champion_version is not None and "champion" not in arms:
        findings.block(
            f"Champion version {champion_version} was not benchmarked, and missing evidence blocks.",
            "Benchmark the champion on the same examples.",
        )
    for scored, where in ((arms, "frozen"), (fresh, "fresh")):
        _check_whole_prompts(findings, scored, where, config)
    compared = [name for name in opponents if not (is_champion and name == "champion")]
    effects = [_compare_primary(findings, arms, name, names[name], config) for name in compared]
    if not is_champion:
        if config.policy == "refresh" and "champion" in arms:
            _compare_fresh(findings, _of_all(fresh, arms), names["champion"], holdout_unavailable_reason, config)
        _check_guards(findings, arms, _of_all(general or {}, arms), names, config)
        if config.max_latency_increase is not None and (latency or "champion" in arms):
            name = names[latency.opponent if latency else "champion"]
            findings.add(check_latency(latency, config.max_latency_increase, config.confidence, name))
        if attacks is not None:
            _check_safety(findings, arms, attacks, names, config)
        _check_slices(findings, arms, opponents[-1], names[opponents[-1]], config)
    return PromotionDecision(
        outcome=_outcome(findings),
        primary_metric=config.primary_metric,
        comparisons=tuple(findings.comparisons),
        reasons=tuple(findings.reasons),
        remedies=tuple(dict.fromkeys(findings.remedies)),
        minimum_detectable_effect=max((effect for effect in effects if effect is not None), default=None),
        champion_version=champion_version,
    )


def _outcome(findings: _Findings) -> Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]:
    if findings.blocked:
        return "HOLD"
    return "NEEDS_HUMAN" if findings.inconclusive else "PROMOTE"


def _check_whole_prompts(findings: _Findings, arms: Mapping[str, pd.DataFrame], where: str, config: PromotionConfig) -> None:
    """Blocks where a model answered more shortened questions than are allowed."""
    shares = {arm: float(frame["prompt_cut"].mean()) for arm, frame in arms.items() if "prompt_cut" in frame and len(frame)}
    arm = max(shares, key=lambda name: shares[name], default=None)
    if arm is not None and shares[arm] > config.max_cut_share:
        findings.block(
            f"{shares[arm]:.1%} of the {len(arms[arm])} {where} examples were cut to fit the context of the {arm} model; at "
            f"most {config.max_cut_share:.1%} may be.",
            "A base model with a longer context, shorter prompts, or a lower benchmark.max_new_tokens, which leaves prompts "
            "more room.",
        )


def _compare_primary(
    findings: _Findings, arms: Mapping[str, pd.DataFrame], opponent: str, name: str, config: PromotionConfig
) -> float | None:
    """Adds the comparison of the primary metric with one opponent; returns the minimum detectable effect."""
    metric = config.primary_metric
    candidate, other = _pairs(arms, opponent, metric)
    if len(candidate) < config.min_examples:
        findings.block(
            f"Only {len(candidate)} examples compare {metric} with {name}; at least {config.min_examples} are required.",
            f"Freeze a test set of {config.min_examples} examples or more, or lower promotion.min_examples.",
        )
        if len(candidate) < 2:
            return None
    sign = _sign(metric)
    interval = difference(candidate, other, config)
    gain = _signed(interval, sign)
    margin = config.refresh_margin if config.policy == "refresh" and opponent == "champion" else None
    passed = gain.low > (0.0 if margin is None else -margin)
    rule = "superior: the interval lies above 0" if margin is None else f"not inferior: worse by less than {margin:g}"
    findings.comparisons.append(_comparison(opponent, metric, interval, len(candidate), rule, passed))
    figures = _figures(metric, float(candidate.mean()), float(other.mean()), interval, len(candidate), config)
    if passed:
        findings.reasons.append(f"{'Better than' if margin is None else 'Not worse than'} {name}: {figures}.")
    else:
        verdict = "Worse than" if gain.high < 0 else "Not shown to be better than" if margin is None else "May be worse than"
        findings.block(
            f"{verdict} {name}: {figures}.", *_primary_remedies(gain, candidate - other, margin, opponent, config)
        )
    return _detectable_effect(candidate - other, config)


def _primary_remedies(
    gain: Interval, differences: Values, margin: float | None, opponent: str, config: PromotionConfig
) -> list[str]:
    """What would change a failed primary comparison."""
    remedies = []
    room = gain.estimate + (margin or 0.0)
    if room > 0:
        needed = math.ceil((_z(config) * float(differences.std(ddof=1)) / room) ** 2)
        remedies.append(
            f"If the gain of {gain.estimate:+.3f} over the {opponent} is real, about {max(needed, config.min_examples):,} "
            f"examples would show it 4 times in 5 ({len(differences):,} were compared)."
        )
    else:
        remedies.append(f"A candidate that scores higher than the {opponent}; more examples alone will not help.")
    if opponent == "champion" and margin is None and gain.low > -config.refresh_margin:
        remedies.append("Policy `refresh`, which requires a gain on the fresh rows instead of the frozen examples.")
    return remedies


def _compare_fresh(
    findings: _Findings,
    arms: Mapping[str, pd.DataFrame],
    name: str,
    holdout_unavailable_reason: str,
    config: PromotionConfig,
) -> None:
    """Adds the comparison on the newest rows, on which a refresh must be better than the champion."""
    metric = config.primary_metric
    candidate, other = _pairs(arms, "champion", metric)
    if len(candidate) < config.min_fresh_examples:
        reason = f" ({holdout_unavailable_reason})" if holdout_unavailable_reason else ""
        findings.block(
            f"Only {len(candidate)} fresh rows compare {metric} with {name}{reason}; policy refresh needs at least "
            f"{config.min_fresh_examples} to show that the candidate learned the new rows.",
            "More new rows with a creation time, a larger prepare.splitting.fresh_share, or policy `improve`.",
        )
        return
    interval = difference(candidate, other, config)
    gain = _signed(interval, _sign(metric))
    passed = gain.low > 0
    rule = "fresh rows: superior: the interval lies above 0"
    findings.comparisons.append(_comparison("champion", f"{metric}[fresh]", interval, len(candidate), rule, passed))
    figures = _figures(metric, float(candidate.mean()), float(other.mean()), interval, len(candidate), config)
    if passed:
        findings.reasons.append(f"Better than {name} on the fresh rows: {figures}.")
        return
    verdict = "Worse than" if gain.high < 0 else "Not shown to be better than"
    remedies = _primary_remedies(gain, candidate - other, None, "champion on fresh rows", config)
    findings.block(f"{verdict} {name} on the fresh rows: {figures}.", *remedies)


def _check_guards(
    findings: _Findings,
    arms: Mapping[str, pd.DataFrame],
    general: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    config: PromotionConfig,
) -> None:
    for guard in config.all_guards:
        if guard.opponent in arms:
            measured = arms if METRICS[guard.metric].measured_on == "frozen" else general
            findings.add(_check_guard(measured, guard, names[guard.opponent], config))
    if (margin := config.max_placeholder_increase) is not None:
        for opponent in [name for name in names if name in arms]:
            candidate, other = _pairs(arms, opponent, METRIC)
            if len(candidate):
                interval = difference(candidate, other, config)
                findings.add(check_placeholders(candidate, other, interval, margin, opponent, names[opponent]))


def _check_guard(arms: Mapping[str, pd.DataFrame], guard: GuardConfig, name: str, config: PromotionConfig) -> GuardResult:
    candidate, other = _pairs(arms, guard.opponent, guard.metric)
    if len(candidate) < 2:
        return GuardResult(
            "inconclusive",
            None,
            f"The guard on {guard.metric} could not be measured, and missing evidence does not pass.",
            f"Measure {guard.metric}, remove its guard from promotion.guards, or let a person approve.",
        )
    interval = _COMPARED[guard.statistic](candidate, other, config)
    gain = _signed(interval, _sign(guard.metric))
    passed = gain.low >= -guard.max_worsening
    metric = _NAMED[guard.statistic].format(guard.metric)
    rule = f"guard: worse by at most {guard.max_worsening:g}" + ("" if guard.statistic == "mean" else " of it")
    comparison = _comparison(guard.opponent, metric, interval, len(candidate), rule, passed)
    if passed:
        return GuardResult("passed", comparison)
    bounds = f"{_interval_text(interval, config)} against {name}, allowed: worse by {guard.max_worsening:g}"
    if gain.estimate < -guard.max_worsening:
        remedy = f"A candidate that keeps {metric} within its margin."
        return GuardResult("violated", comparison, f"The guard on {metric} is violated: {bounds}.", remedy)
    remedy = f"More examples, which would make the guard on {metric} conclusive; a person may decide instead."
    return GuardResult("inconclusive", comparison, f"The guard on {metric} is inconclusive: {bounds}.", remedy)


def _check_safety(
    findings: _Findings,
    arms: Mapping[str, pd.DataFrame],
    attacks: Mapping[str, Mapping[str, Failures]],
    names: Mapping[str, str],
    config: PromotionConfig,
) -> None:
    for guard in config.safety_guards:
        if guard.opponent in arms:
            candidate, other = (
                attacks[arm].get(guard.rate, {}) if arm in attacks else None for arm in ("candidate", guard.opponent)
            )
            findings.add(check_rate(guard, candidate, other, names[guard.opponent], config.confidence))


def _check_slices(
    findings: _Findings, arms: Mapping[str, pd.DataFrame], opponent: str, name: str, config: PromotionConfig
) -> None:
    """Adds the slices on which the candidate is worse beyond chance and beyond the allowed drop."""
    metric = config.primary_metric
    scores = _paired(arms, opponent, metric)
    slices: dict[Slice, tuple[Values, Values]] = {}
    for key, ids in _slices(arms["candidate"], config).items():
        chosen = scores[scores.index.isin(ids)]
        if len(chosen) >= config.min_slice_examples:
            slices[key] = chosen["candidate"].to_numpy(), chosen["other"].to_numpy()
    p_values = {key: p_no_harm(*pair, _sign(metric), config) for key, pair in slices.items()}
    harmful = _holm_rejections(p_values, 1 - config.confidence)
    comparisons = []
    for (dimension, value), (candidate, other) in slices.items():
        interval = difference(candidate, other, config)
        gain = _signed(interval, _sign(metric))
        is_harmed = (dimension, value) in harmful and gain.estimate < -config.max_slice_drop
        rule = f"slice: no drop beyond chance and {config.max_slice_drop:g}"
        passed = not is_harmed
        if config.policy == "refresh" and opponent == "champion":
            rule = f"slice: not inferior: worse by less than {config.refresh_slice_margin:g}"
            passed = not is_harmed and gain.low > -config.refresh_slice_margin
        comparisons.append(_comparison(opponent, f"{metric}[{value}]", interval, len(candidate), rule, passed))
        if not is_harmed and not passed:
            findings.leave_open(
                f"On {dimension} {value!r} the candidate may be worse than {name} by more than "
                f"{config.refresh_slice_margin:g}: {metric} {_interval_text(interval, config)}, {len(candidate)} examples.",
                f"More frozen examples with {dimension} {value!r}; a person may decide instead.",
            )
        if is_harmed:
            findings.block(
                f"On {dimension} {value!r} the candidate is worse than {name}: {metric} {_interval_text(interval, config)}, "
                f"{len(candidate)} examples, after correcting for {len(slices)} slices.",
                f"Better or more training rows with {dimension} {value!r}.",
            )
    comparisons.sort(key=lambda comparison: (comparison.passed, _sign(metric) * comparison.difference))
    findings.comparisons.extend(comparisons[:_MAX_SLICES_SHOWN])


def _slices(examples: pd.DataFrame, config: PromotionConfig) -> dict[Slice, list[str]]:
    """The ids of each slice's examples."""
    ids: dict[Slice, list[str]] = {}
    if "label" in config.slice_by and "label" in examples:
        for row_id, label in examples["label"].dropna().items():
            ids.setdefault(("label", str(label)), []).append(str(row_id))
    others = set(config.slice_by) - {"label"}
    if others and "slices" in examples:
        for row_id, belongs in examples["slices"].items():
            for item in belongs if belongs is not None else ():
                if item["dimension"] in others:
                    ids.setdefault((item["dimension"], item["value"]), []).append(str(row_id))
    return dict(sorted(ids.items()))


def _check_same_examples(arms: Mapping[str, pd.DataFrame]) -> None:
    for name, frame in arms.items():
        if not frame.index.is_unique or not frame.index.equals(arms["candidate"].index):
            raise IntegrityError(
                f"benchmark arm {name!r}",
                f"{len(frame)} examples",
                f"exactly the {len(arms['candidate'])} that the candidate answered, once each",
                "Score all arms on the same frozen set.",
            )


def _of_all(general: Mapping[str, pd.DataFrame], arms: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """The scores of every arm; an empty frame where an arm has none."""
    return {name: general[name].sort_index() if name in general else pd.DataFrame() for name in arms}


def _pairs(arms: Mapping[str, pd.DataFrame], opponent: str, metric: str) -> tuple[Values, Values]:
    """The candidate's and the opponent's scores on the examples that both were measured on."""
    both = _paired(arms, opponent, metric)
    return both["candidate"].to_numpy(), both["other"].to_numpy()


def _paired(arms: Mapping[str, pd.DataFrame], opponent: str, metric: str) -> pd.DataFrame:
    """The columns ``candidate`` and ``other`` of the examples that both were measured on; empty for an unmeasured metric."""
    if metric not in arms["candidate"] or metric not in arms[opponent]:
        return pd.DataFrame({"candidate": [], "other": []}, dtype=float)
    return pd.DataFrame({"candidate": arms["candidate"][metric], "other": arms[opponent][metric]}).astype(float).dropna()


def _sign(metric: str) -> int:
    return 1 if METRICS[metric].higher_is_better else -1


def _signed(interval: Interval, sign: int) -> Interval:
    """The interval of the gain: a difference turned so that more is better."""
    if sign > 0:
        return interval
    return Interval(-interval.estimate, -interval.high, -interval.low)


def _holm_rejections(p_values: Mapping[Slice, float], level: float) -> set[Slice]:
    """The hypotheses that Holm's step-down procedure rejects at a family-wise level."""
    rejected: set[Slice] = set()
    for rank, (name, p_value) in enumerate(sorted(p_values.items(), key=lambda item: (item[1], item[0]))):
        if p_value > level / (len(p_values) - rank):
            break
        rejected.add(name)
    return rejected


def _z(config: PromotionConfig) -> float:
    return two_sided_quantile(config.confidence) + NormalDist().inv_cdf(_POWER)


def _detectable_effect(differences: Values, config: PromotionConfig) -> float:
    """The true difference that this many examples with this scatter would prove 4 times in 5."""
    return _z(config) * float(differences.std(ddof=1)) / math.sqrt(len(differences))


def _comparison(opponent: str, metric: str, interval: Interval, num_examples: int, rule: str, passed: bool) -> Comparison:
    return Comparison(
        opponent=opponent,
        metric=metric,
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        num_examples=num_examples,
        rule=rule,
        passed=passed,
    )


def _figures(
    metric: str, candidate: float, other: float, interval: Interval, num_examples: int, config: PromotionConfig
) -> str:
    return (
        f"{metric} {candidate:.3f} against {other:.3f}, difference {_interval_text(interval, config)}, "
        f"{num_examples} examples"
    )


def _interval_text(interval: Interval, config: PromotionConfig) -> str:
    low, high = f"{interval.low:+.3f}", f"{interval.high:+.3f}"
    return f"{interval.estimate:+.3f} ({config.confidence:.0%} interval {low} to {high})"
