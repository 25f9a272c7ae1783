"""The champion: promotion as a compare-and-set, a person's answer, and rollback.

A change is written down first and carried out afterwards; see :mod:`tasks.registry.journal`. Callers hold the lock of the
model (see :mod:`tasks.registry.task`); this module does not keep two promoters apart.

``champion`` is the version to serve. Where a rollout is configured, a new version first gets the alias ``rollout`` beside
the champion; it becomes champion when the rollout is complete (see :mod:`tasks.registry.live`).
"""

from __future__ import annotations

from typing import Any

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import ChampionEvent, PromotionRecord, RegisteredVersion, RollbackPlan, known_as
from tasks.core.errors import ClosedQuestionError, NotAnApproverError, NothingToGoBackToError, RegistryError
from tasks.core.typed_text import NAME_CHARACTERS, check_text
from tasks.registry.approval import (
    APPROVAL,
    Answer,
    ApprovalTerms,
    approval_in,
    describe_approval,
    fault_of_answer,
    fault_of_person,
    request_approval,
)
from tasks.registry.config import RolloutConfig
from tasks.registry.journal import (
    PROMOTION,
    ROLLED_BACK,
    begin_change,
    champion_events,
    complete_pending_change,
    read_events,
    withdraw_approval,
)
from tasks.registry.rollout import Rollout, abort, rollout_in, start
from tasks.registry.versions import CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, describe, tags_of
from tasks.tracking import registry_errors

_NO_ANSWER = dict.fromkeys(("verdict", "by", "identity", "reason", "answered_at"))


def promote(
    client: Any,
    name: str,
    candidate: RegisteredVersion,
    decision: PromotionDecision,
    now: str,
    terms: ApprovalTerms | None = None,
    plan: RolloutConfig | None = None,
) -> PromotionRecord:
    """Makes the candidate champion if the decision says so and the champion is still the one it was compared with.

    Where ``terms`` require a person's approval first, the request is written to the version's tags and no alias moves;
    :func:`record_answer` does the rest. A request that is open, or was rejected, is not made again.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        candidate: The version that was evaluated.
        decision: The gate's decision. ``HOLD`` is recorded and no alias moves.
        now: Time of the event, ISO 8601 in UTC.
        terms: When a person's approval is required; None never requires it.
        plan: How a new champion takes over the traffic; None at once.

    Raises:
        RegistryError: The champion changed since the benchmark, or MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        complete_pending_change(client, name)
        aliases = aliases_of(client, name)
        champion = aliases.get(CHAMPION)
        tags = client.get_model_version(name, candidate.version).tags
        blocked, before = _why_blocked(candidate.version, tags), approval_in(tags)
        approval = request_approval(decision, terms, before, now) if terms else None
        if approval is None and before is not None and before.verdict is None:
            # The new evaluation needs no approval, so the open request is obsolete.
            why = f"it was evaluated again: {decision.outcome}."
            withdraw_approval(client, name, candidate.version, before, why, now)
        if decision.outcome != "PROMOTE" and approval is None:
            reason = f"{decision.outcome}: {' '.join(decision.reasons)}"
        elif champion == candidate.version:
            # A run that was killed after this promotion repeats it.
            return _make_record(client, name, candidate, reason="It is champion already.")
        elif aliases.get(UNDER_ROLLOUT) == candidate.version:
            return _make_record(client, name, candidate, reason="Its rollout is in progress already.")
        elif blocked:
            reason = f"HOLD: {blocked}"
        elif champion != decision.champion_version:
            raise RegistryError(
                f"registered model {name}",
                f"champion {_format_version(champion)}",
                f"{_format_version(decision.champion_version)}, with which version {candidate.version} was compared",
                "Run again; the candidate is then compared with the new champion.",
            )
        elif approval is not None:
            client.set_model_version_tag(name, candidate.version, APPROVAL, approval.model_dump_json())
            reason = describe_approval(approval)
        else:
            reason = " ".join(decision.reasons)
            event = ChampionEvent(action="promote", version=candidate.version, replaced=champion, reason=reason, at=now)
            return _promote_or_roll_out(client, name, candidate, event, plan)
        client.set_model_version_tag(name, candidate.version, PROMOTION, reason)
        return _make_record(client, name, candidate, reason=reason)


def record_answer(
    client: Any,
    name: str,
    candidate: RegisteredVersion,
    compared_with: str | None,
    answer: Answer,
    now: str,
    plan: RolloutConfig | None = None,
) -> PromotionRecord:
    """The record of a candidate after a person's answer: champion after an approval, unchanged after a rejection.

    Where several people must approve, it is champion after the last of them; one rejection suffices. The first answer
    counts. The same verdict again changes nothing, so that an interrupted answer may be repeated.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        candidate: The version in question.
        compared_with: The champion that it was benchmarked against, None when there was none.
        answer: The person's answer.
        now: Time of the answer, ISO 8601 in UTC.
        plan: How a new champion takes over the traffic; None at once.

    Raises:
        ClosedQuestionError: No approval was requested, another request replaced it, it expired or was withdrawn, or the
            answer differs from the first.
        NotAnApproverError: This person may not give it; the request stays open.
        RegistryError: MLflow refuses.
    """
    where = f"registered model {name}, version {candidate.version}"
    with registry_errors(f"registered model {name}"):
        complete_pending_change(client, name)
        champion = aliases_of(client, name).get(CHAMPION)
        approval = approval_in(client.get_model_version(name, candidate.version).tags)
        fault = fault_of_answer(approval, compared_with, answer, now)
        if fault or approval is None:
            raise ClosedQuestionError(where, *(fault or ("no request", "a request for approval", "")))
        if approval.verdict is not None:
            return _make_record(client, name, candidate, reason=describe_approval(approval))
        if champion != approval.champion_version:  # somebody moved the alias in MLflow
            compared = _format_version(approval.champion_version)
            why = f"the champion is {_format_version(champion)}, and it was compared with {compared}."
            withdraw_approval(client, name, candidate.version, approval, why, now)
            todo = "Run again; the candidate is then compared with the new champion."
            raise ClosedQuestionError(where, f"an outdated request: {why[:-1]}", "a request about the champion", todo)
        if refusal := fault_of_person(approval, answer.name, answer.identity, answer.verdict):
            raise NotAnApproverError(where, *refusal)
        answered = answer.apply_to(approval, now)
        if answered.verdict != "approve":
            client.set_model_version_tag(name, candidate.version, APPROVAL, answered.model_dump_json())
            client.set_model_version_tag(name, candidate.version, PROMOTION, describe_approval(answered))
            return _make_record(client, name, candidate, reason=describe_approval(answered))
        if answered.votes:  # the change itself names the people, and not what each of them said
            open_request = answered.model_copy(update={**_NO_ANSWER, "votes": answered.votes})
            client.set_model_version_tag(name, candidate.version, APPROVAL, open_request.model_dump_json())
        event = ChampionEvent(
            action="promote",
            version=candidate.version,
            replaced=champion,
            reason=answer.reason,
            at=now,
            by=answered.by,
            identity=answered.identity,
        )
        return _promote_or_roll_out(client, name, candidate, event, plan)


def current_record(client: Any, name: str, candidate: RegisteredVersion) -> PromotionRecord:
    """The present record of a candidate: its aliases, and the request for approval with its answer."""
    with registry_errors(f"registered model {name}"):
        complete_pending_change(client, name)
        approval = approval_in(client.get_model_version(name, candidate.version).tags)
        reason = describe_approval(approval) if approval else "No approval is requested."
        return _make_record(client, name, candidate, reason=reason)


def plan_rollback(client: Any, name: str, to: str | None = None) -> RollbackPlan:
    """What a rollback would do now, to be shown before it is done.

    Without a named version it goes to the one that the champion replaced, or ends the rollout in progress. It never goes to
    a version that was rolled back itself, and after a rollback there is nothing left to do: the same command again changes
    nothing. Whoever wants another version names it.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        to: The version that comes back; it was champion before.

    Raises:
        NothingToGoBackToError: The champion replaced no other, or one that was rolled back.
        RegistryError: ``to`` never was champion or was deleted, or MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        complete_pending_change(client, name)
        aliases, events = aliases_of(client, name), champion_events(client, name)
        champion, previous, under_rollout = (aliases.get(alias) for alias in (CHAMPION, PREVIOUS, UNDER_ROLLOUT))
        if to is not None:
            _check_target(client, name, to, {*(event.version for event in events), previous, champion})
        ended = _last_way_back(client, name, champion)
        returns: str | None
        leaves: str | None
        if under_rollout and to in (None, champion):
            returns, leaves, ended = champion, under_rollout, None
        elif to is None and ended is not None:
            returns, leaves = champion, ended
        else:
            returns, leaves = to or previous, champion
        rolled_back = (tags_of(client, name, returns) or {}).get(ROLLED_BACK) if returns and to is None else None
        if returns is None or leaves is None or rolled_back:
            raise NothingToGoBackToError(
                f"registered model {name}",
                f"champion {_format_version(champion)}, previous {_format_version(previous)}"
                + (f", which was rolled back ({rolled_back})" if rolled_back else ""),
                "a champion that replaced another",
                "There is nothing to go back to."
                if not rolled_back
                else f"Name a version with `--to`; `--to {returns}` restores this one.",
            )
        changes = [event for event in events if event.version == returns]
        return RollbackPlan(
            name=name,
            returns=returns,
            leaves=leaves,
            rollout=bool(under_rollout) and to in (None, champion),
            returns_run=(tags_of(client, name, returns) or {}).get("perennial.run_name"),
            returns_since=changes[-1].at if changes else None,
            to=to,
            already=(to is None and ended is not None) or returns == leaves,
        )


def _last_way_back(client: Any, name: str, champion: str | None) -> str | None:
    """The version that the last change took the traffic from, where a rollback or an abort gave it to the champion."""
    last = next(reversed(read_events(client, name)), None)
    if last is None or last.action not in ("rollback", "abort"):
        return None
    returned, left = (last.version, last.replaced) if last.action == "rollback" else (last.replaced, last.version)
    return left if returned == champion else None


def _check_target(client: Any, name: str, to: str, known: set[str | None]) -> None:
    there = sorted((version for version in known if version and tags_of(client, name, version) is not None), key=int)
    if to not in there:
        raise RegistryError(
            f"registered model {name}",
            f"`--to {to}`",
            f"a version that was champion before: {', '.join(there) or 'there is none'}",
            "Name one of them; `perennial history` shows each with its run.",
        )


def roll_back(
    client: Any,
    name: str,
    reason: str,
    now: str,
    by: str | None = None,
    shown: RollbackPlan | None = None,
    to: str | None = None,
) -> PromotionRecord:
    """Makes an earlier champion champion again; see :func:`plan_rollback` for which one.

    The version rolled back is marked: no later run promotes it automatically, and no later rollback returns to it unless it
    is named. While a rollout is in progress the champion is unchanged, and the rollback aborts the rollout.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        reason: Why.
        now: Time of the event, ISO 8601 in UTC.
        by: Who does it.
        shown: The plan that was shown to that person; None carries out the present plan. A rollback that repeats the last
            one changes nothing, so that an interrupted one may be repeated.
        to: The version that comes back, where no plan was shown.

    Raises:
        InputError: The reason or the name is empty, too long for the record, or holds control characters.
        RegistryError: There is nothing to go back to, the plan is no longer the one that was shown, or MLflow refuses.
    """
    reason = check_text(reason, "the reason of the rollback")
    by = check_text(by, "who rolls back", NAME_CHARACTERS) if by is not None else None
    with registry_errors(f"registered model {name}"):
        complete_pending_change(client, name)
        if shown is not None and _is_last_change(client, name, shown, reason, by):
            return _rollback_record(client, name, shown, reason, by)
        plan = plan_rollback(client, name, shown.to if shown is not None else to)
        facts = [(one.returns, one.leaves, one.rollout, one.already) for one in (plan, shown or plan)]
        if shown is not None and facts[0] != facts[1]:
            raise RegistryError(
                f"registered model {name}",
                f"version {plan.returns} to come back in place of version {plan.leaves}",
                f"version {shown.returns} in place of version {shown.leaves}, as it was shown",
                "The champion changed meanwhile. Look again, and roll back if it is still wanted.",
            )
        if plan.already:
            candidate = describe(client, name, plan.returns)
            return _make_record(client, name, candidate, reason="Nothing was changed: it is champion already.")
        if plan.rollout:
            end_rollout(client, name, plan.leaves, reason, now, by)
        else:
            event = ChampionEvent(
                action="rollback", version=plan.returns, replaced=plan.leaves, reason=reason, at=now, by=by
            )
            begin_change(client, name, event)
            complete_pending_change(client, name)
        return _rollback_record(client, name, plan, reason, by)


def end_rollout(client: Any, name: str, version: str, reason: str, now: str, by: str | None = None) -> Rollout:
    """Aborts the rollout of a version: the champion, which is unchanged, gets all the traffic.

    Raises:
        RolloutError: No rollout is in progress.
    """
    ended = abort(rollout_in(tags_of(client, name, version) or {}), reason, now)
    champion = aliases_of(client, name).get(CHAMPION)
    event = ChampionEvent(action="abort", version=version, replaced=champion, reason=reason, at=now, by=by)
    begin_change(client, name, event, ended)
    complete_pending_change(client, name)
    return ended


def _promote_or_roll_out(
    client: Any, name: str, candidate: RegisteredVersion, event: ChampionEvent, plan: RolloutConfig | None
) -> PromotionRecord:
    """Makes a candidate champion, or begins its rollout where the plan says so and there is a champion to share with."""
    rollout = None
    if plan is not None and plan.at_promotion and event.replaced is not None and plan.steps[0].share < 100:
        rollout = start(plan, event.replaced, event.at)
        event = event.model_copy(update={"action": "rollout"})
    begin_change(client, name, event, rollout)
    complete_pending_change(client, name)
    reason = f"Approved by {known_as(event.by, event.identity)}: {event.reason}" if event.by else event.reason
    return _make_record(client, name, candidate, reason=reason)


def _why_blocked(version: str, tags: dict[str, str]) -> str | None:
    """Why a version is not promoted automatically; None where nothing blocks it."""
    if rolled_back := tags.get(ROLLED_BACK):
        return f"version {version} was rolled back ({rolled_back}) and is not promoted again automatically."
    rollout = rollout_in(tags)
    if rollout is not None and rollout.state == "aborted":
        last = rollout.changes[-1]
        return f"the rollout of version {version} was {last.note} ({last.at}), and does not start again automatically."
    return None


def _is_last_change(client: Any, name: str, plan: RollbackPlan, reason: str, by: str | None) -> bool:
    """Whether the registry's last change is this rollback."""
    last = next(reversed(read_events(client, name)), None)
    places = (plan.leaves, plan.returns, "abort") if plan.rollout else (plan.returns, plan.leaves, "rollback")
    return last is not None and (last.version, last.replaced, last.action, last.reason, last.by) == (*places, reason, by)


def _rollback_record(client: Any, name: str, plan: RollbackPlan, reason: str, by: str | None) -> PromotionRecord:
    sentence = f"Rolled back{f' by {by}' if by else ''}: {reason}"
    if plan.rollout:
        sentence += f" (the rollout of version {plan.leaves} is aborted; version {plan.returns} has all the traffic)"
    return _make_record(client, name, describe(client, name, plan.returns), reason=sentence)


def _make_record(client: Any, name: str, candidate: RegisteredVersion, *, reason: str) -> PromotionRecord:
    aliases = aliases_of(client, name)
    tags = client.get_model_version(name, candidate.version).tags
    rollout = rollout_in(tags) if aliases.get(UNDER_ROLLOUT) == candidate.version else None
    return PromotionRecord(
        candidate=describe(client, name, candidate.version),
        promoted=aliases.get(CHAMPION) == candidate.version,
        champion_version=aliases.get(CHAMPION),
        previous_version=aliases.get(PREVIOUS),
        reason=reason,
        approval=approval_in(tags),
        rollout_share=rollout.share if rollout else None,
    )


def _format_version(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
