"""The run in one sentence: the decision, with the figures behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.contracts.registry import Approval, known_as
from tasks.contracts.run import RunEvidence
from tasks.dossier.formatting import count, decimal, interval, measured, metric_name, metric_unit
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
    figures, approval = _figures(evidence), promotion.approval
    if approval is not None and (approval.verdict != "approve" or decision.outcome == "NEEDS_HUMAN"):
        return _approval_verdict(evidence, approval, figures)
    if promotion.rollout_share is not None:
        return _rollout_verdict(evidence, promotion.rollout_share, figures)
    if decision.outcome == "PROMOTE" and promotion.promoted:
        place = f"Version {candidate.version} of {candidate.name} is the new champion"
        return Verdict("Promoted", "good", f"{place}: {figures}.")
    if decision.outcome == "PROMOTE":
        return Verdict("Passed, not promoted", "hold", f"The candidate passed the gate ({figures}), but {promotion.reason}")
    if decision.outcome == "NEEDS_HUMAN":
        return Verdict("Needs a person", "ask", f"The figures alone do not decide: {figures}.")
    stays = f"version {promotion.champion_version} stays champion" if promotion.champion_version else "there is no champion"
    return Verdict("Held", "hold", f"The candidate is not promoted, and {stays}: {figures}.")


def _rollout_verdict(evidence: RunEvidence, share: int, figures: str) -> Verdict:
    """The verdict on a version under rollout; until its last step another version is champion."""
    approval, champion = evidence.promotion.approval, evidence.promotion.champion_version
    version = f"version {evidence.candidate.version} of {evidence.candidate.name}"
    stays = f"with {share}\u202f% of the traffic; version {champion} is champion until it has all"
    who = (
        f"{approval.by} let {version} begin its rollout"
        if approval and approval.by
        else f"{version[0].upper()}{version[1:]} rolls out"
    )
    return Verdict("Rolls out", "good", f"{who}, {stays}: {figures}.")


def _approval_verdict(evidence: RunEvidence, approval: Approval, figures: str) -> Verdict:
    """The verdict where a person decided, or has to decide."""
    version = f"version {evidence.candidate.version} of {evidence.candidate.name}"
    if approval.verdict is None:
        return Verdict("Awaits approval", "ask", f"A person decides whether {version} becomes champion: {figures}.")
    if approval.verdict == "withdrawn":
        return Verdict("Withdrawn", "hold", f"The request for approval of {version} was withdrawn: {approval.reason}")
    if approval.verdict == "reject":
        return Verdict("Rejected", "hold", f"{approval.by} rejected {version}: {figures}.")
    return Verdict("Promoted", "good", f"{approval.by} made {version} the champion: {figures}.")


def approval_line(approval: Approval) -> str:
    """The request for approval, or who answered it, when and why."""
    if approval.verdict is None:
        until = f", open until {_minute(approval.expires_at)}" if approval.expires_at else ""
        given = "".join(f", approved by {known_as(vote.by, vote.identity)}" for vote in approval.votes)
        several = f", {len(approval.votes)} of {approval.required} approvals" if approval.required > 1 else ""
        return f"requested {_minute(approval.requested_at)}{until}{several}{given}"
    if approval.verdict == "withdrawn":
        return f"withdrawn {_minute(approval.answered_at or '')}: {approval.reason}"
    verb = "approved" if approval.verdict == "approve" else "rejected"
    who = f"{verb} by {known_as(approval.by, approval.identity)}, {_minute(approval.answered_at or '')}"
    reasons = [f"{vote.by}: {vote.reason}" for vote in approval.votes] if len(approval.votes) > 1 else [approval.reason]
    return f"{who}: {' '.join(reason for reason in reasons if reason)}"


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
