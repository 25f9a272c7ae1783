"""The run in one sentence: what was decided, with the figures that decided it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.contracts.registry import Approval
from tasks.contracts.run import RunEvidence
from tasks.dossier.notation import count, decimal, interval, measured, metric_name, metric_unit
from tasks.measures.metrics import METRICS

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
    figures, asked = _figures(evidence), promotion.approval
    if asked is not None and (asked.verdict != "approve" or decision.outcome == "NEEDS_HUMAN"):
        return _verdict_of_a_person(evidence, asked, figures)
    if promotion.rollout_share is not None:
        return _verdict_of_a_rollout(evidence, promotion.rollout_share, figures)
    if decision.outcome == "PROMOTE" and promotion.promoted:
        place = f"Version {candidate.version} of {candidate.name} is the new champion"
        return Verdict("Promoted", "good", f"{place}: {figures}.")
    if decision.outcome == "PROMOTE":
        return Verdict("Passed, not promoted", "hold", f"The candidate passed the gate ({figures}), but {promotion.reason}")
    if decision.outcome == "NEEDS_HUMAN":
        return Verdict("Needs a person", "ask", f"The candidate cannot be judged by figures alone: {figures}.")
    stays = f"version {promotion.champion_version} stays champion" if promotion.champion_version else "there is no champion"
    return Verdict("Held", "hold", f"The candidate is not promoted, and {stays}: {figures}.")


def _verdict_of_a_rollout(evidence: RunEvidence, share: int, figures: str) -> Verdict:
    """A version that takes over step by step; until the last one another is champion."""
    asked, champion = evidence.promotion.approval, evidence.promotion.champion_version
    version = f"version {evidence.candidate.version} of {evidence.candidate.name}"
    stays = f"with {share}\u202f% of the traffic; version {champion} is champion until it has all"
    who = (
        f"{asked.by} let {version} begin its rollout"
        if asked and asked.by
        else f"{version[0].upper()}{version[1:]} rolls out"
    )
    return Verdict("Rolls out", "good", f"{who}, {stays}: {figures}.")


def _verdict_of_a_person(evidence: RunEvidence, asked: Approval, figures: str) -> Verdict:
    """What a person decided, or is asked to."""
    version = f"version {evidence.candidate.version} of {evidence.candidate.name}"
    if asked.verdict is None:
        return Verdict("Awaits approval", "ask", f"A person decides whether {version} becomes champion: {figures}.")
    if asked.verdict == "withdrawn":
        return Verdict("Withdrawn", "hold", f"Nobody is asked about {version} any more: {asked.reason}")
    if asked.verdict == "reject":
        return Verdict("Rejected", "hold", f"{asked.by} rejected {version}: {figures}.")
    return Verdict("Promoted", "good", f"{asked.by} made {version} the champion: {figures}.")


def approval_line(asked: Approval) -> str:
    """The question to a person, or who answered it, when and why."""
    if asked.verdict is None:
        return f"asked {_minute(asked.asked_at)}" + (f", open until {_minute(asked.expires_at)}" if asked.expires_at else "")
    if asked.verdict == "withdrawn":
        return f"withdrawn {_minute(asked.answered_at or '')}: {asked.reason}"
    verb = "approved" if asked.verdict == "approve" else "rejected"
    return f"{verb} by {asked.by}, {_minute(asked.answered_at or '')}: {asked.reason}"


def _minute(moment: str) -> str:
    """``2026-11-01 02:00 UTC`` for a time in ISO 8601 in UTC."""
    return f"{moment[:16].replace('T', ' ')} UTC"


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
