"""Who reigns: promotion as a compare-and-set, a person's answer, and the way back.

What changes is written down first and done afterwards; see :mod:`tasks.registry.journal`. Callers hold the lock of the
model (see :mod:`tasks.registry.task`); nothing here could keep two promoters apart.

``champion`` is what to serve. Where a rollout is asked for, a new version first stands under ``rollout``, beside a champion
that stays; it becomes champion when the rollout is complete (see :mod:`tasks.registry.live`).
"""

from __future__ import annotations

from typing import Any

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.registry import ChampionEvent, PromotionRecord, RegisteredVersion, RollbackPlan
from tasks.core.errors import ClosedQuestionError, NothingToGoBackToError, RegistryError
from tasks.core.typed_text import NAME_CHARACTERS, check_text
from tasks.registry.approval import APPROVAL, Answer, Terms, approval_in, describe_approval, fault_of_answer, question
from tasks.registry.config import RolloutConfig
from tasks.registry.journal import PROMOTION, ROLLED_BACK, begin, events, history, settle, withdraw
from tasks.registry.rollout import Rollout, abort, rollout_in, start
from tasks.registry.versions import CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, describe, tags_of
from tasks.tracking import registry_errors

__all__ = ["answer_question", "end_rollout", "history", "plan_rollback", "promote", "roll_back", "settle", "standing"]


def promote(
    client: Any,
    name: str,
    candidate: RegisteredVersion,
    decision: PromotionDecision,
    now: str,
    terms: Terms | None = None,
    plan: RolloutConfig | None = None,
) -> PromotionRecord:
    """Makes the candidate champion if the decision says so and the champion is still the one it was judged against.

    Where ``terms`` want a person's word first, the question is written to the version's tags and no alias moves;
    :func:`answer_question` does the rest. A question that stands, or was answered with no, is not asked again.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        candidate: The version judged.
        decision: The gate's decision. ``HOLD`` is recorded and no alias moves.
        now: Time of the event, ISO 8601 in UTC.
        terms: When a person is asked; None asks nobody.
        plan: How a new champion takes over the traffic; None at once.

    Raises:
        RegistryError: The champion changed since the benchmark, or MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        aliases = aliases_of(client, name)
        champion = aliases.get(CHAMPION)
        tags = client.get_model_version(name, candidate.version).tags
        stopped, before = _stopped(candidate.version, tags), approval_in(tags)
        asked = question(decision, terms, before, now) if terms else None
        if asked is None and before is not None and before.verdict is None:
            # Judged anew, and by itself: nobody may answer the old question any more.
            why = f"it was judged anew: {decision.outcome}."
            withdraw(client, name, candidate.version, before, why, now)
        if decision.outcome != "PROMOTE" and asked is None:
            reason = f"{decision.outcome}: {' '.join(decision.reasons)}"
        elif champion == candidate.version:
            # This very promotion was done before, by a run that was killed after it.
            return _record(client, name, candidate, reason="It reigns already.")
        elif aliases.get(UNDER_ROLLOUT) == candidate.version:
            return _record(client, name, candidate, reason="Its rollout is under way already.")
        elif stopped:
            reason = f"HOLD: {stopped}"
        elif champion != decision.champion_version:
            raise RegistryError(
                f"registered model {name}",
                f"champion {_told(champion)}",
                f"{_told(decision.champion_version)}, against which version {candidate.version} was judged",
                "Run again; the candidate is then compared with the new champion.",
            )
        elif asked is not None:
            client.set_model_version_tag(name, candidate.version, APPROVAL, asked.model_dump_json())
            reason = describe_approval(asked)
        else:
            reason = " ".join(decision.reasons)
            event = ChampionEvent(action="promote", version=candidate.version, replaced=champion, reason=reason, at=now)
            return _accept(client, name, candidate, event, plan)
        client.set_model_version_tag(name, candidate.version, PROMOTION, reason)
        return _record(client, name, candidate, reason=reason)


def answer_question(
    client: Any,
    name: str,
    candidate: RegisteredVersion,
    judged_against: str | None,
    answer: Answer,
    now: str,
    plan: RolloutConfig | None = None,
) -> PromotionRecord:
    """What became of a candidate on which a person has decided: champion after yes, where it was after no.

    The first answer counts. The same verdict once more changes nothing, so that a killed answer may be repeated.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        candidate: The version in question.
        judged_against: The champion that it was benchmarked against, None when there was none.
        answer: The person's answer.
        now: Time of the answer, ISO 8601 in UTC.
        plan: How a new champion takes over the traffic; None at once.

    Raises:
        ClosedQuestionError: Nothing was asked, the question is another one by now, expired or was withdrawn, or the answer
            differs from the first.
        RegistryError: MLflow refuses.
    """
    where = f"registered model {name}, version {candidate.version}"
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        champion = aliases_of(client, name).get(CHAMPION)
        asked = approval_in(client.get_model_version(name, candidate.version).tags)
        fault = fault_of_answer(asked, judged_against, answer, now)
        if fault or asked is None:
            raise ClosedQuestionError(where, *(fault or ("nothing asked", "a question", "")))
        if asked.verdict is not None:
            return _record(client, name, candidate, reason=describe_approval(asked))
        if champion != asked.champion_version:  # moved by hand, in MLflow
            why = f"the champion is {_told(champion)}, and it was judged against {_told(asked.champion_version)}."
            withdraw(client, name, candidate.version, asked, why, now)
            todo = "Run again; the candidate is then compared with the new champion."
            raise ClosedQuestionError(where, f"an outdated question: {why[:-1]}", "a question about the champion", todo)
        if answer.verdict == "reject":
            asked = answer.to(asked, now)
            client.set_model_version_tag(name, candidate.version, APPROVAL, asked.model_dump_json())
            client.set_model_version_tag(name, candidate.version, PROMOTION, describe_approval(asked))
            return _record(client, name, candidate, reason=describe_approval(asked))
        event = ChampionEvent(
            action="promote", version=candidate.version, replaced=champion, reason=answer.reason, at=now, by=answer.name
        )
        return _accept(client, name, candidate, event, plan)


def standing(client: Any, name: str, candidate: RegisteredVersion) -> PromotionRecord:
    """What stands about a candidate: its place, and the question with its answer."""
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        asked = approval_in(client.get_model_version(name, candidate.version).tags)
        return _record(client, name, candidate, reason=describe_approval(asked) if asked else "Nobody is asked about it.")


def plan_rollback(client: Any, name: str) -> RollbackPlan:
    """What a rollback would do now, to be shown before it is done.

    Raises:
        NothingToGoBackToError: The champion replaced no other.
        RegistryError: MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        aliases = aliases_of(client, name)
        champion, previous, under_way = (aliases.get(alias) for alias in (CHAMPION, PREVIOUS, UNDER_ROLLOUT))
        returns, leaves = (champion, under_way) if under_way else (previous, champion)
        if returns is None or leaves is None:
            raise NothingToGoBackToError(
                f"registered model {name}",
                f"champion {_told(champion)}, previous {_told(previous)}",
                "a champion that replaced another",
                "There is nothing to go back to.",
            )
        changes = [event for event in history(client, name) if event.version == returns]
        return RollbackPlan(
            name=name,
            returns=returns,
            leaves=leaves,
            rollout=under_way is not None,
            returns_run=(tags_of(client, name, returns) or {}).get("perennial.run_name"),
            returns_since=changes[-1].at if changes else None,
        )


def roll_back(
    client: Any, name: str, reason: str, now: str, by: str | None = None, shown: RollbackPlan | None = None
) -> PromotionRecord:
    """Makes ``previous`` champion again; the version rolled back becomes ``previous``, so a second rollback undoes it.

    The version rolled back is marked: no later run promotes it again by itself. While a rollout is under way the champion
    never left its place; what is rolled back is the rollout.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        reason: Why.
        now: Time of the event, ISO 8601 in UTC.
        by: Who does it.
        shown: What was shown to that person; None does what there is to do. The same one again changes nothing, so that a
            rollback that broke off may be repeated.

    Raises:
        InputError: The reason or the name is empty, too long for the record, or holds control characters.
        RegistryError: There is nothing to go back to, it is something else than what was shown, or MLflow refuses.
    """
    reason = check_text(reason, "the reason of the rollback")
    by = check_text(by, "who rolls back", NAME_CHARACTERS) if by is not None else None
    action = "abort" if shown is not None and shown.rollout else "rollback"
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        last = next(reversed(events(client, name)), None)
        if shown is not None and last is not None and last.action == action and (last.reason, last.by) == (reason, by):
            places = (shown.returns, shown.leaves) if action == "rollback" else (shown.leaves, shown.returns)
            if (last.version, last.replaced) == places:
                return _returned(client, name, shown, reason, by)
        plan = plan_rollback(client, name)
        if shown is not None and (shown.returns, shown.leaves, shown.rollout) != (plan.returns, plan.leaves, plan.rollout):
            raise RegistryError(
                f"registered model {name}",
                f"version {plan.returns} to come back in place of version {plan.leaves}",
                f"version {shown.returns} in place of version {shown.leaves}, as it was shown",
                "Somebody was quicker. Look again, and roll back if it is still wanted.",
            )
        if plan.rollout:
            end_rollout(client, name, plan.leaves, reason, now, by)
        else:
            begin(
                client,
                name,
                ChampionEvent(action="rollback", version=plan.returns, replaced=plan.leaves, reason=reason, at=now, by=by),
            )
            settle(client, name)
        return _returned(client, name, plan, reason, by)


def end_rollout(client: Any, name: str, version: str, reason: str, now: str, by: str | None = None) -> Rollout:
    """The rollout of a version aborted: the champion, which never left its place, has all the traffic.

    Raises:
        RolloutError: There is no rollout on its way.
    """
    ended = abort(rollout_in(tags_of(client, name, version) or {}), reason, now)
    champion = aliases_of(client, name).get(CHAMPION)
    event = ChampionEvent(action="abort", version=version, replaced=champion, reason=reason, at=now, by=by)
    begin(client, name, event, ended)
    settle(client, name)
    return ended


def _accept(
    client: Any, name: str, candidate: RegisteredVersion, event: ChampionEvent, plan: RolloutConfig | None
) -> PromotionRecord:
    """Makes a candidate champion, or begins its rollout where the plan asks for one and there is traffic to share."""
    rollout = None
    if plan is not None and plan.at_promotion and event.replaced is not None and plan.steps[0].share < 100:
        rollout = start(plan, event.replaced, event.at)
        event = event.model_copy(update={"action": "rollout"})
    begin(client, name, event, rollout)
    settle(client, name)
    reason = f"Approved by {event.by}: {event.reason}" if event.by else event.reason
    return _record(client, name, candidate, reason=reason)


def _stopped(version: str, tags: dict[str, str]) -> str | None:
    """Why a version does not come back by itself, if so."""
    if rolled_back := tags.get(ROLLED_BACK):
        return f"version {version} was rolled back ({rolled_back}) and does not return by itself."
    rollout = rollout_in(tags)
    if rollout is not None and rollout.state == "aborted":
        last = rollout.changes[-1]
        return f"the rollout of version {version} was {last.note} ({last.at}), and does not begin again by itself."
    return None


def _returned(client: Any, name: str, plan: RollbackPlan, reason: str, by: str | None) -> PromotionRecord:
    done = f"Rolled back{f' by {by}' if by else ''}: {reason}"
    if plan.rollout:
        done += f" (the rollout of version {plan.leaves} is aborted; version {plan.returns} has all the traffic)"
    restored = describe(client, name, plan.returns)
    return _record(client, name, restored, reason=done)


def _record(client: Any, name: str, candidate: RegisteredVersion, *, reason: str) -> PromotionRecord:
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


def _told(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
