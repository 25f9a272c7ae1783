"""A person's word on a candidate: when it is asked for, what a valid answer is, how both read. Pure; nothing is moved here.

The question and its answer are one tag of the model version, :data:`APPROVAL`: whoever answers, in Prefect's page or from
the command, answers that question, and the first answer counts.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import Approval
from tasks.core.typed_text import Name, Reason

APPROVAL = "perennial.approval"

Verdict = Literal["approve", "reject"]
When = Literal["never", "when_unsure", "always"]


class Terms(FrozenModel):
    """When a person is asked, how long the question stands, and which flow run asks.

    Attributes:
        when: ``when_unsure`` asks when the gate says ``NEEDS_HUMAN``, ``always`` before every promotion too.
        timeout_hours: The question expires after it; None lets it stand for ever.
        flow_run_id: The flow run that waits for the answer, if one does.
    """

    when: When
    timeout_hours: float | None = None
    flow_run_id: str | None = None


class Answer(BaseModel):
    """A person's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    verdict: Verdict = Field(description="Whether the candidate becomes champion.")
    name: Name = Field(description="Who decides.")
    reason: Reason = Field(description="Why; kept with the version.")

    def to(self, asked: Approval, now: str) -> Approval:
        """The question with this answer."""
        answer: dict[str, str] = {"verdict": self.verdict, "by": self.name, "reason": self.reason, "answered_at": now}
        return asked.model_copy(update=answer)


def withdrawn(asked: Approval, reason: str, now: str) -> Approval:
    """The question as one that nobody may answer any more."""
    return asked.model_copy(update={"verdict": "withdrawn", "reason": reason, "answered_at": now})


def approval_in(tags: Mapping[str, str]) -> Approval | None:
    """The question, answered or not, that a version's tags hold."""
    return Approval.model_validate_json(tags[APPROVAL]) if tags.get(APPROVAL) else None


def question(decision: PromotionDecision, terms: Terms, before: Approval | None, now: str) -> Approval | None:
    """What a person is asked about a decision; None when nobody is.

    Args:
        decision: The gate's decision.
        terms: When a person is asked.
        before: What was asked about this version before; the same question stands, with its date and a no to it.
        now: ISO 8601 in UTC.
    """
    asks = terms.when != "never" and (decision.outcome == "NEEDS_HUMAN" or terms.when == "always")
    if decision.outcome == "HOLD" or not asks:
        return None
    same = before is not None and (before.outcome, before.champion_version) == (decision.outcome, decision.champion_version)
    if before is not None and same and before.verdict == "reject":
        return before
    if before is not None and same and before.verdict is None and not is_expired(before, now):
        others = {*before.also_waiting, before.flow_run_id} - {terms.flow_run_id, None}
        return before.model_copy(
            update={"flow_run_id": terms.flow_run_id, "also_waiting": tuple(sorted(one for one in others if one))}
        )
    expires = None
    if terms.timeout_hours is not None:
        expires = (dt.datetime.fromisoformat(now) + dt.timedelta(hours=terms.timeout_hours)).isoformat(timespec="seconds")
    return Approval(
        outcome=decision.outcome,
        champion_version=decision.champion_version,
        asked_at=now,
        expires_at=expires,
        flow_run_id=terms.flow_run_id,
    )


def is_expired(asked: Approval, now: str) -> bool:
    """Whether the question's time is over without an answer."""
    if asked.verdict is not None or asked.expires_at is None:
        return False
    return dt.datetime.fromisoformat(now) >= dt.datetime.fromisoformat(asked.expires_at)


def fault_of_answer(
    asked: Approval | None, judged_against: str | None, answer: Answer, now: str
) -> tuple[str, str, str] | None:
    """Why an answer cannot be taken, as found, expected and what to do; None when it can."""
    if asked is None:
        return "no question to a person", "a version that awaits approval", "See `perennial show RUN` for what was decided."
    if asked.champion_version != judged_against:
        found = f"a question about the comparison with {_champion(asked.champion_version)}"
        return found, f"one about {_champion(judged_against)}", "Name the run that asked last."
    if asked.verdict == "withdrawn":
        return f"no open question ({describe_approval(asked)})", "an open question", "Run again to be asked anew."
    if asked.verdict is not None and asked.verdict != answer.verdict:
        return f"an answer ({describe_approval(asked)})", "an open question", "The first answer counts."
    if is_expired(asked, now):
        return f"a question that expired {asked.expires_at}", "an answer before that", "Run again to be asked anew."
    return None


def describe_approval(asked: Approval) -> str:
    """The question or its answer in a sentence."""
    if asked.verdict == "withdrawn":
        return f"Withdrawn on {asked.answered_at}: {asked.reason}"
    if asked.verdict is not None:
        verb = "Approved" if asked.verdict == "approve" else "Rejected"
        return f"{verb} by {asked.by} on {asked.answered_at}: {asked.reason}"
    until = f", until {asked.expires_at}" if asked.expires_at else ""
    return f"Awaits a person's approval since {asked.asked_at}{until}."


def _champion(version: str | None) -> str:
    return "no champion" if version is None else f"champion version {version}"
