"""The run in one sentence: what was decided, with the figures that decided it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.contracts import RunEvidence
from tasks.dossier.notation import count, decimal, interval, measured, metric_name, metric_unit
from tasks.metrics import METRICS

Tone = Literal["good", "hold", "ask"]
_OPPONENTS = {"base": "the base model", "champion": "the champion"}


@dataclass(frozen=True)
class Verdict:
    """The banner of the dossier."""

    label: str
    tone: Tone
    sentence: str


def verdict_of(evidence: RunEvidence) -> Verdict:
    """The outcome, its colour, and one sentence with the figures."""
    decision, promotion, candidate = evidence.decision, evidence.promotion, evidence.candidate
    figures = _figures(evidence)
    if decision.outcome == "PROMOTE" and promotion.promoted:
        place = f"Version {candidate.version} of {candidate.name} is the new champion"
        return Verdict("Promoted", "good", f"{place}: {figures}.")
    if decision.outcome == "PROMOTE":
        return Verdict("Passed, not promoted", "hold", f"The candidate passed the gate ({figures}), but {promotion.reason}")
    if decision.outcome == "NEEDS_HUMAN":
        return Verdict("Needs a person", "ask", f"The candidate cannot be judged by figures alone: {figures}.")
    stays = f"version {promotion.champion_version} stays champion" if promotion.champion_version else "there is no champion"
    return Verdict("Held", "hold", f"The candidate is not promoted, and {stays}: {figures}.")


def _figures(evidence: RunEvidence) -> str:
    metric = evidence.decision.primary_metric
    primary = [comparison for comparison in evidence.decision.comparisons if comparison.metric == metric]
    primary = [comparison for comparison in primary if comparison.opponent in _OPPONENTS]
    candidate = evidence.benchmark.arm("candidate")
    score = candidate.score(metric) if candidate else None
    if not primary or score is None or score.value is None:
        return evidence.decision.reasons[0].rstrip(".") if evidence.decision.reasons else "no comparison was made"
    unit = metric_unit(metric)
    parts = []
    for comparison in primary:
        arm = evidence.benchmark.arm(comparison.opponent)
        other = measured(arm.score(metric) if arm else None, unit)
        limits = interval(comparison.low, comparison.high, unit)
        difference = f"difference {decimal(comparison.difference, unit)}, 95\u202f% interval {limits}"
        parts.append(f"{other} for {_OPPONENTS[comparison.opponent]} ({difference})")
    examples = count(primary[0].num_examples)
    direction = ", where lower is better" if metric in METRICS and METRICS[metric].higher_is_better is False else ""
    score_text = f"{decimal(score.value, unit)} in {metric_name(metric)}{direction}"
    return f"on {examples} held-out examples it scores {score_text}, against {' and '.join(parts)}"
