"""A person's approval of a candidate: when it is required, which answers are valid, how both read. Pure: no alias moves.

The request and its answer are one tag of the model version, :data:`APPROVAL`. Prefect's page and the command answer the same
request, and the first answer counts.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.contracts.base import FrozenModel
from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import Approval, Identity, Vote, known_as
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
        approvers: Who may answer; empty: anybody.
        required: How many different people must approve.
        excluded: Who started the run and may not approve it; None where that person may, or nobody started it.
        verified: Whether a name must come from a token or a proxy.
    """

    when: When
    timeout_hours: float | None = None
    flow_run_id: str | None = None
    approvers: tuple[str, ...] = ()
    required: int = 1
    excluded: str | None = None
    verified: bool = False

    def apply_to(self, approval: Approval) -> Approval:
        """The request under these terms; approvals that they do not allow are dropped."""
        rules = {
            "approvers": self.approvers,
            "required": self.required,
            "excluded": self.excluded,
            "verified": self.verified,
        }
        changed = approval.model_copy(update=rules)
        votes = tuple(vote for vote in approval.votes if fault_of_person(changed, vote.by, vote.identity, "approve") is None)
        return changed.model_copy(update={"votes": votes})


class Answer(BaseModel):
    """A person's answer."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True, hide_input_in_errors=True)

    verdict: Verdict = Field(description="Whether the candidate becomes champion.")
    name: Name = Field(description="Who decides.")
    reason: Reason = Field(description="Why; kept with the version.")
    identity: Identity = Field("typed", description="How the name is known.")

    def apply_to(self, approval: Approval, now: str) -> Approval:
        """The request with this answer. One approval of several is a vote, and the last of them the answer."""
        votes = self._votes(approval, now)
        if len(votes) < approval.required and self.verdict == "approve":
            return approval.model_copy(update={"votes": votes})
        answer: dict[str, object] = {"verdict": self.verdict, "reason": self.reason, "answered_at": now}
        answer |= {"by": self.name, "identity": self.identity}
        if self.verdict == "approve" and len(votes) > 1:
            answer |= {"by": " and ".join(known_as(vote.by, vote.identity) for vote in votes), "identity": None}
            answer |= {"votes": votes}
        return approval.model_copy(update=answer)

    def _votes(self, approval: Approval, now: str) -> tuple[Vote, ...]:
        """The approvals with this one; the same person counts once."""
        if any(same_person(vote.by, self.name) for vote in approval.votes):
            return approval.votes
        return (*approval.votes, Vote(by=self.name, identity=self.identity, reason=self.reason, at=now))


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
        waiting = {"flow_run_id": terms.flow_run_id, "also_waiting": tuple(sorted(run for run in others if run))}
        return terms.apply_to(before.model_copy(update=waiting))
    expires = None
    if terms.timeout_hours is not None:
        expires = (dt.datetime.fromisoformat(now) + dt.timedelta(hours=terms.timeout_hours)).isoformat(timespec="seconds")
    request = Approval(
        outcome=decision.outcome,
        champion_version=decision.champion_version,
        requested_at=now,
        expires_at=expires,
        flow_run_id=terms.flow_run_id,
    )
    return terms.apply_to(request)


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


def fault_of_person(
    approval: Approval, name: str, identity: Identity | None, verdict: Verdict
) -> tuple[str, str, str] | None:
    """Why a person may not answer an open request, as found, expected and what to do; None where that is allowed."""
    listed = f"one of {', '.join(approval.approvers)}" if approval.approvers else "anybody else"
    if approval.verified and identity not in ("token", "proxy"):
        found = "a name that was typed"
        todo = "Answer with a signed token, or on the page behind the proxy that authenticates people (registry.identity)."
        return found, "a name from a token or a proxy", todo
    if approval.approvers and not any(same_person(name, each) for each in approval.approvers):
        return f"an answer by {name}", listed, "Let one of them answer, or add the name to registry.approvers and run again."
    if verdict == "approve" and approval.excluded is not None and same_person(name, approval.excluded):
        return f"an approval by {name}, who started the run", listed, "Let another person approve."
    return None


def same_person(first: str, second: str) -> bool:
    """Whether two names are equal but for case, spaces and their form in Unicode."""
    return _plain(first) == _plain(second)


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def progress_of(approval: Approval) -> str:
    """Who may answer an open request, and who approved already; empty where anybody decides alone."""
    parts = []
    if approval.required > 1:
        given = ", ".join(known_as(vote.by, vote.identity) for vote in approval.votes)
        parts.append(f"{len(approval.votes)} of {approval.required} approvals{f': {given}' if given else ''}")
    if approval.approvers:
        parts.append(f"may answer: {', '.join(approval.approvers)}")
    if approval.excluded is not None:
        parts.append(f"not by {approval.excluded}, who started the run")
    return "; ".join(parts)


def describe_approval(approval: Approval) -> str:
    """The request or its answer in a sentence."""
    if approval.verdict == "withdrawn":
        return f"Withdrawn on {approval.answered_at}: {approval.reason}"
    if approval.verdict is not None:
        verb = "Approved" if approval.verdict == "approve" else "Rejected"
        return f"{verb} by {known_as(approval.by, approval.identity)} on {approval.answered_at}: {approval.reason}"
    until = f", until {approval.expires_at}" if approval.expires_at else ""
    progress = progress_of(approval)
    return f"Awaits a person's approval since {approval.requested_at}{until}{f' ({progress})' if progress else ''}."


def _champion(version: str | None) -> str:
    return "no champion" if version is None else f"champion version {version}"
