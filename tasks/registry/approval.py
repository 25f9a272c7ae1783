"""A person's approval of a candidate: when it is required, which answers are valid, how both read. Pure: no alias moves.

The request and its answer are one tag of the model version, :data:`APPROVAL`. Prefect's page and the command answer the same
request, and the first answer counts.
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


class ApprovalTerms(FrozenModel):
    """When a person's approval is required, how long the request stays open, and which flow run waits for it.

    Attributes:
        when: ``when_unsure`` requires approval when the gate says ``NEEDS_HUMAN``, ``always`` before every promotion too.
        timeout_hours: The request expires after it; None never expires.
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

    def apply_to(self, approval: Approval, now: str) -> Approval:
        """The request with this answer."""
        answer: dict[str, str] = {"verdict": self.verdict, "by": self.name, "reason": self.reason, "answered_at": now}
        return approval.model_copy(update=answer)


def withdrawn(approval: Approval, reason: str, now: str) -> Approval:
    """The request, closed without an answer."""
    return approval.model_copy(update={"verdict": "withdrawn", "reason": reason, "answered_at": now})


def approval_in(tags: Mapping[str, str]) -> Approval | None:
    """The request, answered or not, in a version's tags."""
    return Approval.model_validate_json(tags[APPROVAL]) if tags.get(APPROVAL) else None


def request_approval(
    decision: PromotionDecision, terms: ApprovalTerms, before: Approval | None, now: str
) -> Approval | None:
    """The request for approval of a decision; None where no approval is required.

    Args:
        decision: The gate's decision.
        terms: When approval is required.
        before: The version's earlier request. One about the same decision stays, with its date and its rejection.
        now: ISO 8601 in UTC.
    """
    is_required = terms.when != "never" and (decision.outcome == "NEEDS_HUMAN" or terms.when == "always")
    if decision.outcome == "HOLD" or not is_required:
        return None
    same = before is not None and (before.outcome, before.champion_version) == (decision.outcome, decision.champion_version)
    if before is not None and same and before.verdict == "reject":
        return before
    if before is not None and same and before.verdict is None and not is_expired(before, now):
        others = {*before.also_waiting, before.flow_run_id} - {terms.flow_run_id, None}
        return before.model_copy(
            update={"flow_run_id": terms.flow_run_id, "also_waiting": tuple(sorted(run for run in others if run))}
        )
    expires = None
    if terms.timeout_hours is not None:
        expires = (dt.datetime.fromisoformat(now) + dt.timedelta(hours=terms.timeout_hours)).isoformat(timespec="seconds")
    return Approval(
        outcome=decision.outcome,
        champion_version=decision.champion_version,
        requested_at=now,
        expires_at=expires,
        flow_run_id=terms.flow_run_id,
    )


def is_expired(approval: Approval, now: str) -> bool:
    """Whether the request's time is over without an answer."""
    if approval.verdict is not None or approval.expires_at is None:
        return False
    return dt.datetime.fromisoformat(now) >= dt.datetime.fromisoformat(approval.expires_at)


def fault_of_answer(
    approval: Approval | None, compared_with: str | None, answer: Answer, now: str
) -> tuple[str, str, str] | None:
    """Why an answer is not accepted, as found, expected and what to do; None where it is."""
    if approval is None:
        return "no request for approval", "a version that awaits approval", "`perennial show RUN` shows the decision."
    if approval.champion_version != compared_with:
        found = f"a request about the comparison with {_champion(approval.champion_version)}"
        return found, f"one about {_champion(compared_with)}", "Name the run that made the last request."
    if approval.verdict == "withdrawn":
        return f"no open request ({describe_approval(approval)})", "an open request", "Run again for a new one."
    if approval.verdict is not None and approval.verdict != answer.verdict:
        return f"an answer ({describe_approval(approval)})", "an open request", "The first answer counts."
    if is_expired(approval, now):
        return f"a request that expired {approval.expires_at}", "an answer before that", "Run again for a new one."
    return None


def describe_approval(approval: Approval) -> str:
    """The request or its answer in a sentence."""
    if approval.verdict == "withdrawn":
        return f"Withdrawn on {approval.answered_at}: {approval.reason}"
    if approval.verdict is not None:
        verb = "Approved" if approval.verdict == "approve" else "Rejected"
        return f"{verb} by {approval.by} on {approval.answered_at}: {approval.reason}"
    until = f", until {approval.expires_at}" if approval.expires_at else ""
    return f"Awaits a person's approval since {approval.requested_at}{until}."


def _champion(version: str | None) -> str:
    return "no champion" if version is None else f"champion version {version}"
