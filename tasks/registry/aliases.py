"""Who reigns: promotion as a compare-and-set, rollback, and the record of both.

MLflow moves one alias at a time and knows no transaction, so a change of champion is written down before it is done, as
the registered model's tag ``perennial.intent``, with everything that will be set. Each of its steps may be repeated
freely, and whoever comes next finishes what it finds begun: a kill between any two steps leaves no doubt about the
outcome. ``champion`` moves in one step from one version to the next and is never empty once set.

Callers hold the lock of the model (see :mod:`tasks.registry.task`); nothing here could keep two promoters apart.
"""

from __future__ import annotations

import logging
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.contracts import Approval, ChampionEvent, PromotionDecision, PromotionRecord, RegisteredVersion
from tasks.errors import InputError, RegistryError
from tasks.registry.approval import APPROVAL, Answer, Terms, approval_in, describe_approval, fault_of_answer, question
from tasks.registry.rollout import ROLLOUT
from tasks.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, aliases_of, describe, model_tags_of, tags_of
from tasks.texts import check_text, cut
from tasks.tracking import registry_errors

logger = logging.getLogger(__name__)

_INTENT = "perennial.intent"
_EVENT = "perennial.event."
_ROLLED_BACK = "perennial.rolled_back"
_PROMOTION = "perennial.promotion"


class _Intent(BaseModel):
    """A change of champion, written down before it is done."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    number: int
    event: ChampionEvent


def promote(
    client: Any,
    name: str,
    candidate: RegisteredVersion,
    decision: PromotionDecision,
    now: str,
    terms: Terms | None = None,
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

    Raises:
        RegistryError: The champion changed since the benchmark, or MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        aliases = aliases_of(client, name)
        champion = aliases.get(CHAMPION)
        tags = client.get_model_version(name, candidate.version).tags
        rolled_back = tags.get(_ROLLED_BACK)
        before = approval_in(tags)
        asked = question(decision, terms, before, now) if terms else None
        if asked is None and before is not None and before.verdict is None:
            # Judged anew, and by itself: nobody may answer the old question any more.
            client.delete_model_version_tag(name, candidate.version, APPROVAL)
        if decision.outcome != "PROMOTE" and asked is None:
            reason = f"{decision.outcome}: {' '.join(decision.reasons)}"
        elif champion == candidate.version:
            # This very promotion was done before, by a run that was killed after it.
            return _record(client, name, candidate, aliases, promoted=True, reason="It reigns already.")
        elif rolled_back:
            reason = f"HOLD: version {candidate.version} was rolled back ({rolled_back}) and does not return by itself."
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
            return _crown(client, name, candidate, event)
        client.set_model_version_tag(name, candidate.version, _PROMOTION, reason)
        return _record(client, name, candidate, aliases, promoted=False, reason=reason)


def answer_question(
    client: Any, name: str, candidate: RegisteredVersion, judged_against: str | None, answer: Answer, now: str
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

    Raises:
        InputError: Nothing was asked, the question is another one by now, it expired, or the answer differs from the first.
        RegistryError: The champion changed since the benchmark, or MLflow refuses.
    """
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        aliases = aliases_of(client, name)
        champion = aliases.get(CHAMPION)
        asked = approval_in(client.get_model_version(name, candidate.version).tags)
        fault = fault_of_answer(asked, judged_against, answer, now)
        if fault or asked is None:
            found, expected, todo = fault or ("nothing asked", "a question", "")
            raise InputError(f"registered model {name}, version {candidate.version}", found, expected, todo)
        if asked.verdict is not None:
            reason = describe_approval(asked)
            return _record(client, name, candidate, aliases, promoted=champion == candidate.version, reason=reason)
        if answer.verdict == "reject":
            asked = answer.to(asked, now)
            client.set_model_version_tag(name, candidate.version, APPROVAL, asked.model_dump_json())
            client.set_model_version_tag(name, candidate.version, _PROMOTION, describe_approval(asked))
            return _record(client, name, candidate, aliases, promoted=False, reason=describe_approval(asked))
        if champion != asked.champion_version:
            raise RegistryError(
                f"registered model {name}",
                f"champion {_told(champion)}",
                f"{_told(asked.champion_version)}, against which version {candidate.version} was judged",
                "Reject it, or run again; the candidate is then compared with the new champion.",
            )
        event = ChampionEvent(
            action="promote", version=candidate.version, replaced=champion, reason=answer.reason, at=now, by=answer.name
        )
        return _crown(client, name, candidate, event)


def roll_back(client: Any, name: str, reason: str, now: str) -> PromotionRecord:
    """Makes ``previous`` champion again; the version rolled back becomes ``previous``, so a second rollback undoes it.

    The version rolled back is marked: no later run promotes it again by itself.

    Raises:
        InputError: The reason is empty, too long for the record, or holds control characters.
        RegistryError: There is no previous champion, or MLflow refuses.
    """
    reason = check_text(reason, "the reason of the rollback")
    with registry_errors(f"registered model {name}"):
        settle(client, name)
        aliases = aliases_of(client, name)
        champion, previous = aliases.get(CHAMPION), aliases.get(PREVIOUS)
        if champion is None or previous is None:
            raise RegistryError(
                f"registered model {name}",
                f"champion {_told(champion)}, previous {_told(previous)}",
                "a champion that replaced another",
                "There is nothing to go back to.",
            )
        _begin(client, name, ChampionEvent(action="rollback", version=previous, replaced=champion, reason=reason, at=now))
        settle(client, name)
        restored = describe(client, name, previous)
        return _record(client, name, restored, aliases_of(client, name), promoted=True, reason=f"Rolled back: {reason}")


def settle(client: Any, name: str) -> None:
    """Finishes a change of champion that was begun and not ended, if there is one; every step may be repeated.

    A version that was deleted in between is passed over: without the one it replaced the new champion begins alone, and a
    change to one that is gone is given up.
    """
    tag = _tags_of(client, name).get(_INTENT)
    if not tag:
        return
    intent = _Intent.model_validate_json(tag)
    event = intent.event
    if tags_of(client, name, event.version) is None:
        what = f"its {event.action}, begun at {event.at}, is given up"
        logger.error("registry: %s: version %s is gone; %s", name, event.version, what)
        client.delete_registered_model_tag(name, _INTENT)
        return
    replaced = event.replaced
    if replaced is not None and tags_of(client, name, replaced) is None:
        logger.warning("registry: %s: version %s, which version %s replaces, is gone", name, replaced, event.version)
        replaced = None
    if replaced is not None:
        client.set_registered_model_alias(name, PREVIOUS, replaced)
    elif aliases_of(client, name).get(PREVIOUS) == event.version:
        client.delete_registered_model_alias(name, PREVIOUS)
    if event.action == "rollback":
        # Who returns has all the traffic; a rollout that the version once had is over.
        client.delete_model_version_tag(name, event.version, ROLLOUT)
    client.set_registered_model_alias(name, CHAMPION, event.version)
    if aliases_of(client, name).get(CHALLENGER) == event.version:
        client.delete_registered_model_alias(name, CHALLENGER)
    reason = cut(event.reason)  # an intent of an older version may hold what a database refuses
    if event.action == "rollback" and replaced is not None:
        client.set_model_version_tag(name, replaced, _ROLLED_BACK, f"{event.at}: {reason}")
    client.delete_model_version_tag(name, event.version, _ROLLED_BACK)
    if event.by is not None:
        _keep_approval(client, name, event)
    by = f", approved by {cut(event.by)}: {reason}" if event.by else ""
    client.set_model_version_tag(name, event.version, _PROMOTION, f"champion since {event.at}{by}")
    kept = event.model_copy(update={"reason": reason})
    client.set_registered_model_tag(name, f"{_EVENT}{intent.number:06d}", kept.model_dump_json())
    client.delete_registered_model_tag(name, _INTENT)
    logger.info("registry: %s, %s: version %s replaces %s", name, event.action, event.version, _told(event.replaced))


def history(client: Any, name: str) -> tuple[ChampionEvent, ...]:
    """Every change of champion, oldest first; empty when there was none."""
    with registry_errors(f"registered model {name}"):
        tags = model_tags_of(client, name) or {}
        return tuple(ChampionEvent.model_validate_json(tags[key]) for key in sorted(tags) if key.startswith(_EVENT))


def _crown(client: Any, name: str, candidate: RegisteredVersion, event: ChampionEvent) -> PromotionRecord:
    _begin(client, name, event)
    settle(client, name)
    reason = f"Approved by {event.by}: {event.reason}" if event.by else event.reason
    return _record(client, name, candidate, aliases_of(client, name), promoted=True, reason=reason)


def _keep_approval(client: Any, name: str, event: ChampionEvent) -> None:
    """Writes the answer that the event carries to the version's tag."""
    asked = approval_in(client.get_model_version(name, event.version).tags)
    if asked is not None and event.by is not None:
        answered = Answer(verdict="approve", name=event.by, reason=event.reason).to(asked, event.at)
        client.set_model_version_tag(name, event.version, APPROVAL, answered.model_dump_json())


def _begin(client: Any, name: str, event: ChampionEvent) -> None:
    # One more than the last, not than their number: a tag may have been removed by hand.
    numbers = [int(key.removeprefix(_EVENT)) for key in _tags_of(client, name) if key.startswith(_EVENT)]
    number = max(numbers, default=0) + 1
    event = event.model_copy(update={"reason": cut(event.reason)})  # a registered model's tag holds 5,000 characters
    client.set_registered_model_tag(name, _INTENT, _Intent(number=number, event=event).model_dump_json())


def _tags_of(client: Any, name: str) -> dict[str, str]:
    return dict(client.get_registered_model(name).tags)


def _record(
    client: Any, name: str, candidate: RegisteredVersion, aliases: dict[str, str], *, promoted: bool, reason: str
) -> PromotionRecord:
    return PromotionRecord(
        candidate=describe(client, name, candidate.version),
        promoted=promoted,
        champion_version=aliases.get(CHAMPION),
        previous_version=aliases.get(PREVIOUS),
        reason=reason,
        approval=_approval_of(client, name, candidate.version),
    )


def _approval_of(client: Any, name: str, version: str) -> Approval | None:
    return approval_in(client.get_model_version(name, version).tags)


def _told(version: str | None) -> str:
    return "none" if version is None else f"version {version}"
