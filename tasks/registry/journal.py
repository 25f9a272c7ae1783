"""Changes of who serves what, written down before they are done, and finished by whoever comes next.

MLflow moves one alias at a time and knows no transaction, so a change is first written down, as the registered model's tag
``perennial.intent``, with everything that will be set. Each of its steps may be repeated freely: a kill between any two
leaves no doubt about the outcome. ``champion`` moves in one step from one version to the next and is never empty once set.

Callers hold the lock of the model (see :mod:`tasks.registry.task`); nothing here could keep two promoters apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from tasks.contracts.base import FrozenModel
from tasks.contracts.registry import Approval, ChampionEvent
from tasks.core.paging import every_token
from tasks.core.typed_text import cut
from tasks.registry.approval import APPROVAL, Answer, approval_in, withdrawn
from tasks.registry.rollout import ROLLOUT, Rollout, abort, rollout_in
from tasks.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, model_tags_of, tags_of
from tasks.tracking import registry_errors

logger = logging.getLogger(__name__)

ROLLED_BACK = "perennial.rolled_back"
PROMOTION = "perennial.promotion"
_INTENT = "perennial.intent"
_EVENT = "perennial.event."
_NEXT_ROLLOUT = "perennial.rollout_next"


class _Intent(FrozenModel):
    """A change, written down before it is done."""

    number: int
    event: ChampionEvent


def begin(client: Any, name: str, event: ChampionEvent, rollout: Rollout | None = None) -> None:
    """Writes a change down; :func:`settle` does it.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        event: What changes.
        rollout: The state of the version's rollout after the change, where that changes too.
    """
    if rollout is None:
        if _NEXT_ROLLOUT in (tags_of(client, name, event.version) or {}):  # of a change that was done and not tidied up
            client.delete_model_version_tag(name, event.version, _NEXT_ROLLOUT)
    else:  # on the version, whose tags are longer than the 5,000 characters of a registered model's
        client.set_model_version_tag(name, event.version, _NEXT_ROLLOUT, rollout.model_dump_json())
    # One more than the last, not than their number: a tag may have been removed by hand.
    tags = model_tags_of(client, name) or {}
    number = max((int(key.removeprefix(_EVENT)) for key in tags if key.startswith(_EVENT)), default=0) + 1
    event = event.model_copy(update={"reason": cut(event.reason)})
    client.set_registered_model_tag(name, _INTENT, _Intent(number=number, event=event).model_dump_json())


def settle(client: Any, name: str) -> None:
    """Finishes a change that was begun and not ended, if there is one; every step may be repeated.

    A version that was deleted in between is passed over: without the one it replaced the new champion begins alone, and a
    change to one that is gone is given up.
    """
    tag = (model_tags_of(client, name) or {}).get(_INTENT)
    if not tag:
        return
    intent = _Intent.model_validate_json(tag)
    event = intent.event
    tags = tags_of(client, name, event.version)
    if tags is None:
        what = f"its {event.action}, begun at {event.at}, is given up"
        logger.error("registry: %s: version %s is gone; %s", name, event.version, what)
        client.delete_registered_model_tag(name, _INTENT)
        return
    replaced = event.replaced
    if replaced is not None and tags_of(client, name, replaced) is None:
        logger.warning("registry: %s: version %s, which version %s replaces, is gone", name, replaced, event.version)
        replaced = None
    reason = cut(event.reason)  # an intent of an older version may hold what a database refuses
    by = cut(event.by) if event.by is not None else None
    if planned := tags.get(_NEXT_ROLLOUT):
        client.set_model_version_tag(name, event.version, ROLLOUT, planned)
    elif tags.get(ROLLOUT):  # who becomes champion at once, or comes back, has all the traffic
        client.delete_model_version_tag(name, event.version, ROLLOUT)
    if event.action == "abort":
        _end_rollout(client, name, event.version)
    elif event.action == "rollout" and replaced is not None:
        _begin_rollout(client, name, event, replaced)
    else:
        _crown(client, name, event, replaced, reason)
    if event.action in ("promote", "rollout") and by is not None:
        _keep_approval(client, name, event)
    if event.action != "abort":
        _withdraw_outdated(client, name, event)
    client.set_model_version_tag(name, event.version, PROMOTION, _sentence(event.action, event.at, reason, by))
    kept = event.model_copy(update={"reason": reason, "by": by})
    client.set_registered_model_tag(name, f"{_EVENT}{intent.number:06d}", kept.model_dump_json())
    client.delete_registered_model_tag(name, _INTENT)
    if planned:
        client.delete_model_version_tag(name, event.version, _NEXT_ROLLOUT)
    logger.info("registry: %s, %s: version %s, before it %s", name, event.action, event.version, event.replaced)


def events(client: Any, name: str) -> tuple[ChampionEvent, ...]:
    """Every change, rollouts' begins and aborts included, oldest first; empty when there was none."""
    with registry_errors(f"registered model {name}"):
        tags = model_tags_of(client, name) or {}
        return tuple(ChampionEvent.model_validate_json(tags[key]) for key in sorted(tags) if key.startswith(_EVENT))


def history(client: Any, name: str) -> tuple[ChampionEvent, ...]:
    """Every change of champion, oldest first; empty when there was none."""
    return tuple(event for event in events(client, name) if event.action in ("promote", "rollback"))


def asked_versions(client: Any, name: str) -> Iterator[tuple[str, Approval]]:
    """The versions that a person is or was asked about, each with its question."""
    for found in every_token(
        lambda limit, token: client.search_model_versions(f"name = '{name}'", max_results=limit, page_token=token)
    ):
        asked = approval_in(found.tags)
        if asked is not None:
            yield str(found.version), asked


def withdraw(client: Any, name: str, version: str, asked: Approval, reason: str, now: str) -> None:
    """Closes a question that nobody may answer any more; the version stays what it is."""
    client.set_model_version_tag(name, version, APPROVAL, withdrawn(asked, reason, now).model_dump_json())
    client.set_model_version_tag(name, version, PROMOTION, f"Not promoted: {reason}")


def _crown(client: Any, name: str, event: ChampionEvent, replaced: str | None, reason: str) -> None:
    """Moves ``champion``; a rollout that is under way is over with it."""
    if replaced is not None:
        client.set_registered_model_alias(name, PREVIOUS, replaced)
    elif aliases_of(client, name).get(PREVIOUS) == event.version:
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_alias(name, CHAMPION, event.version)
    _end_other_rollout(client, name, event)
    _take_alias(client, name, UNDER_ROLLOUT, event.version)
    _take_alias(client, name, CHALLENGER, event.version)
    if event.action == "rollback" and replaced is not None:
        client.set_model_version_tag(name, replaced, ROLLED_BACK, f"{event.at}: {reason}")
    client.delete_model_version_tag(name, event.version, ROLLED_BACK)


def _begin_rollout(client: Any, name: str, event: ChampionEvent, replaced: str) -> None:
    """Puts the version beside the champion, which stays, or comes back where the version was champion already."""
    _end_other_rollout(client, name, event)
    client.set_registered_model_alias(name, UNDER_ROLLOUT, event.version)
    client.set_registered_model_alias(name, CHAMPION, replaced)
    _take_alias(client, name, PREVIOUS, replaced)
    _take_alias(client, name, CHALLENGER, event.version)
    client.delete_model_version_tag(name, event.version, ROLLED_BACK)


def _end_rollout(client: Any, name: str, version: str) -> None:
    _take_alias(client, name, UNDER_ROLLOUT, version)
    if CHALLENGER not in aliases_of(client, name):
        client.set_registered_model_alias(name, CHALLENGER, version)


def _end_other_rollout(client: Any, name: str, event: ChampionEvent) -> None:
    """Aborts the rollout of another version, whose place the event's version takes."""
    other = aliases_of(client, name).get(UNDER_ROLLOUT)
    if other is None or other == event.version:
        return
    present = rollout_in(tags_of(client, name, other) or {})
    if present is not None and present.state == "baking":
        why = f"version {event.version} takes its place"
        client.set_model_version_tag(name, other, ROLLOUT, abort(present, why, event.at).model_dump_json())
        client.set_model_version_tag(name, other, PROMOTION, f"rollout aborted since {event.at}: {why}")
    client.delete_registered_model_alias(name, UNDER_ROLLOUT)


def _take_alias(client: Any, name: str, alias: str, version: str) -> None:
    if aliases_of(client, name).get(alias) == version:
        client.delete_registered_model_alias(name, alias)


def _keep_approval(client: Any, name: str, event: ChampionEvent) -> None:
    """Writes the answer that the event carries to the version's tag; one that stands there is the first."""
    asked = approval_in(tags_of(client, name, event.version) or {})
    if asked is not None and asked.verdict is None and event.by is not None:
        answered = Answer(verdict="approve", name=event.by, reason=event.reason).to(asked, event.at)
        client.set_model_version_tag(name, event.version, APPROVAL, answered.model_dump_json())


def _withdraw_outdated(client: Any, name: str, event: ChampionEvent) -> None:
    """Closes every open question that compares with another champion than there is now, or whose place was taken."""
    for version, asked in list(asked_versions(client, name)):
        outdated = event.action == "rollout" or asked.champion_version != event.version
        if asked.verdict is None and outdated:
            became = "began its rollout" if event.action == "rollout" else "became champion"
            judged = f"version {asked.champion_version}" if asked.champion_version else "no champion"
            why = f"version {event.version} {became}, and version {version} was judged against {judged}."
            withdraw(client, name, version, asked, why, event.at)


def _sentence(action: str, at: str, reason: str, by: str | None) -> str:
    """What the version's own tag says of the change."""
    match action:
        case "rollout":
            return f"under rollout since {at}" + (f", approved by {by}: {reason}" if by else "")
        case "abort":
            return f"rollout aborted since {at}" + (f" by {by}" if by else "") + f": {reason}"
        case "rollback":
            return f"champion again since {at}, rolled back to" + (f" by {by}" if by else "") + f": {reason}"
        case _:
            return f"champion since {at}" + (f", approved by {by}: {reason}" if by else "")
