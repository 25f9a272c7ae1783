"""A write-ahead journal of alias changes: a change is written down first, and the next caller completes it after a kill.

MLflow moves one alias at a time and has no transactions, so a change is first written down, as the registered model's tag
``perennial.intent``, with everything that it will set. Every step is idempotent: a kill between any two steps leaves no
doubt about the outcome. ``champion`` moves in one step from one version to the next and is never empty once set.

Callers hold the lock of the model (see :mod:`tasks.registry.task`); this module does not keep two promoters apart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from tasks.contracts.base import FrozenModel
from tasks.contracts.registry import Approval, ChampionEvent, known_as
from tasks.core.paging import every_token
from tasks.core.typed_text import cut
from tasks.registry.approval import APPROVAL, approval_in, withdrawn
from tasks.registry.rollout import ROLLOUT, Rollout, abort, rollout_in
from tasks.registry.verdicts import verdicts_in
from tasks.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, model_tags_of, tags_of
from tasks.tracking import registry_errors

logger = logging.getLogger(__name__)

ROLLED_BACK = "perennial.rolled_back"
PROMOTION = "perennial.promotion"
_INTENT = "perennial.intent"
_EVENT = "perennial.event."
_NEXT_ROLLOUT = "perennial.rollout_next"


class _PendingChange(FrozenModel):
    """A change that is written down and not yet complete."""

    number: int
    event: ChampionEvent


def begin_change(client: Any, name: str, event: ChampionEvent, rollout: Rollout | None = None) -> None:
    """Writes a change down; :func:`complete_pending_change` carries it out.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model, whose lock the caller holds.
        event: What changes.
        rollout: The state of the version's rollout after the change, where the change affects it.
    """
    if rollout is None:
        if _NEXT_ROLLOUT in (tags_of(client, name, event.version) or {}):  # left by a killed change
            client.delete_model_version_tag(name, event.version, _NEXT_ROLLOUT)
    else:  # on the version: a registered model's tag ends at 5,000 characters
        client.set_model_version_tag(name, event.version, _NEXT_ROLLOUT, rollout.model_dump_json())
    # Counted from the last number: a tag may have been removed by hand.
    tags = model_tags_of(client, name) or {}
    number = max((int(key.removeprefix(_EVENT)) for key in tags if key.startswith(_EVENT)), default=0) + 1
    verdicts = verdicts_in(tags_of(client, name, event.version) or {}) if event.action in ("promote", "rollout") else ()
    run = verdicts[-1].run_name if verdicts else None
    event = event.model_copy(update={"reason": cut(event.reason), "run": run})
    client.set_registered_model_tag(name, _INTENT, _PendingChange(number=number, event=event).model_dump_json())


def complete_pending_change(client: Any, name: str) -> None:
    """Completes a change that was begun and not ended, if there is one; every step is idempotent.

    Where the version was deleted meanwhile, the change is dropped. Where the version that it replaces was deleted, the
    change goes on without it.
    """
    tag = (model_tags_of(client, name) or {}).get(_INTENT)
    if not tag:
        return
    pending = _PendingChange.model_validate_json(tag)
    event = pending.event
    tags = tags_of(client, name, event.version)
    if tags is None:
        change = f"its {event.action}, begun at {event.at}, is dropped"
        logger.error("registry: %s: version %s was deleted; %s", name, event.version, change)
        client.delete_registered_model_tag(name, _INTENT)
        return
    # A pending change of an older release may hold what a database refuses.
    event = event.model_copy(update={"reason": cut(event.reason), "by": cut(event.by) if event.by is not None else None})
    next_rollout = tags.get(_NEXT_ROLLOUT)
    if next_rollout:
        client.set_model_version_tag(name, event.version, ROLLOUT, next_rollout)
    elif tags.get(ROLLOUT):  # a version that becomes champion at once has all the traffic
        client.delete_model_version_tag(name, event.version, ROLLOUT)
    _move_aliases(client, name, event)
    if event.action in ("promote", "rollout") and event.by is not None:
        _record_approval(client, name, event)
    if event.action != "abort":
        _withdraw_outdated_approvals(client, name, event)
    client.set_model_version_tag(name, event.version, PROMOTION, _describe_change(event))
    client.set_registered_model_tag(name, f"{_EVENT}{pending.number:06d}", event.model_dump_json())
    client.delete_registered_model_tag(name, _INTENT)
    if next_rollout:
        client.delete_model_version_tag(name, event.version, _NEXT_ROLLOUT)
    logger.info("registry: %s, %s: version %s, before it %s", name, event.action, event.version, event.replaced)


def _move_aliases(client: Any, name: str, event: ChampionEvent) -> None:
    replaced = event.replaced
    if replaced is not None and tags_of(client, name, replaced) is None:
        logger.warning("registry: %s: version %s, which version %s replaces, was deleted", name, replaced, event.version)
        replaced = None
    if event.action == "abort":
        _end_rollout(client, name, event.version)
    elif event.action == "rollout" and replaced is not None:
        _begin_rollout(client, name, event, replaced)
    else:
        _set_champion_alias(client, name, event, replaced)


def read_events(client: Any, name: str) -> tuple[ChampionEvent, ...]:
    """Every change, rollouts' begins and aborts included, oldest first; empty when there was none."""
    with registry_errors(f"registered model {name}"):
        tags = model_tags_of(client, name) or {}
        return tuple(ChampionEvent.model_validate_json(tags[key]) for key in sorted(tags) if key.startswith(_EVENT))


def champion_events(client: Any, name: str) -> tuple[ChampionEvent, ...]:
    """Every change of champion, oldest first; empty when there was none."""
    return tuple(event for event in read_events(client, name) if event.action in ("promote", "rollback"))


def versions_with_approval(client: Any, name: str) -> Iterator[tuple[str, Approval]]:
    """The versions for which approval was requested, each with its request."""
    for version in every_token(
        lambda limit, token: client.search_model_versions(f"name = '{name}'", max_results=limit, page_token=token)
    ):
        approval = approval_in(version.tags)
        if approval is not None:
            yield str(version.version), approval


def open_requests(client: Any) -> Iterator[tuple[str, str, str, Approval]]:
    """The open requests of every registered model: its name, the version, the run that made it, and the request."""
    for model in every_token(lambda limit, token: client.search_registered_models(max_results=limit, page_token=token)):
        for version, approval in versions_with_approval(client, model.name):
            if approval.verdict is None:
                run = (tags_of(client, model.name, version) or {}).get("perennial.run_name", "")
                yield str(model.name), version, run, approval


def withdraw_approval(client: Any, name: str, version: str, approval: Approval, reason: str, now: str) -> None:
    """Closes a request without an answer; the version keeps its aliases."""
    client.set_model_version_tag(name, version, APPROVAL, withdrawn(approval, reason, now).model_dump_json())
    client.set_model_version_tag(name, version, PROMOTION, f"Not promoted: {reason}")


def _set_champion_alias(client: Any, name: str, event: ChampionEvent, replaced: str | None) -> None:
    """Moves ``champion``, which ends a rollout in progress."""
    if replaced is not None:
        client.set_registered_model_alias(name, PREVIOUS, replaced)
    elif aliases_of(client, name).get(PREVIOUS) == event.version:
        client.delete_registered_model_alias(name, PREVIOUS)
    client.set_registered_model_alias(name, CHAMPION, event.version)
    _abort_other_rollout(client, name, event)
    _remove_alias(client, name, UNDER_ROLLOUT, event.version)
    _remove_alias(client, name, CHALLENGER, event.version)
    if event.action == "rollback" and replaced is not None:
        client.set_model_version_tag(name, replaced, ROLLED_BACK, f"{event.at}: {event.reason}")
    client.delete_model_version_tag(name, event.version, ROLLED_BACK)


def _begin_rollout(client: Any, name: str, event: ChampionEvent, replaced: str) -> None:
    """Puts the version beside the champion; where the version was champion itself, the one before it returns."""
    _abort_other_rollout(client, name, event)
    client.set_registered_model_alias(name, UNDER_ROLLOUT, event.version)
    client.set_registered_model_alias(name, CHAMPION, replaced)
    _remove_alias(client, name, PREVIOUS, replaced)
    _remove_alias(client, name, CHALLENGER, event.version)
    client.delete_model_version_tag(name, event.version, ROLLED_BACK)


def _end_rollout(client: Any, name: str, version: str) -> None:
    _remove_alias(client, name, UNDER_ROLLOUT, version)
    if CHALLENGER not in aliases_of(client, name):
        client.set_registered_model_alias(name, CHALLENGER, version)


def _abort_other_rollout(client: Any, name: str, event: ChampionEvent) -> None:
    """Aborts the rollout of another version, which the event's version replaces."""
    other = aliases_of(client, name).get(UNDER_ROLLOUT)
    if other is None or other == event.version:
        return
    present = rollout_in(tags_of(client, name, other) or {})
    if present is not None and present.state == "baking":
        why = f"version {event.version} takes its place"
        client.set_model_version_tag(name, other, ROLLOUT, abort(present, why, event.at).model_dump_json())
        client.set_model_version_tag(name, other, PROMOTION, f"rollout aborted since {event.at}: {why}")
    client.delete_registered_model_alias(name, UNDER_ROLLOUT)


def _remove_alias(client: Any, name: str, alias: str, version: str) -> None:
    if aliases_of(client, name).get(alias) == version:
        client.delete_registered_model_alias(name, alias)


def _record_approval(client: Any, name: str, event: ChampionEvent) -> None:
    """Writes the event's approval to the version's tag, unless that holds an answer already: the first counts."""
    approval = approval_in(tags_of(client, name, event.version) or {})
    if approval is not None and approval.verdict is None and event.by is not None:
        answer = {"verdict": "approve", "by": event.by, "identity": event.identity, "reason": event.reason}
        answered = approval.model_copy(update={**answer, "answered_at": event.at})
        client.set_model_version_tag(name, event.version, APPROVAL, answered.model_dump_json())


def _withdraw_outdated_approvals(client: Any, name: str, event: ChampionEvent) -> None:
    """Closes every open request that compares with a champion other than the present one, or that a rollout overtook."""
    for version, approval in list(versions_with_approval(client, name)):
        is_outdated = event.action == "rollout" or approval.champion_version != event.version
        if approval.verdict is None and is_outdated:
            change = "began its rollout" if event.action == "rollout" else "became champion"
            opponent = f"version {approval.champion_version}" if approval.champion_version else "no champion"
            why = f"version {event.version} {change}, and version {version} was compared with {opponent}."
            withdraw_approval(client, name, version, approval, why, event.at)


def _describe_change(event: ChampionEvent) -> str:
    """The change in the words of the version's own tag."""
    by = f" by {known_as(event.by, event.identity)}" if event.by else ""
    approved = f", approved{by}: {event.reason}" if by else ""
    match event.action:
        case "rollout":
            return f"under rollout since {event.at}{approved}"
        case "abort":
            return f"rollout aborted since {event.at}{by}: {event.reason}"
        case "rollback":
            return f"champion again since {event.at}, rolled back to{by}: {event.reason}"
        case _:
            return f"champion since {event.at}{approved}"
