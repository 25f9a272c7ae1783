"""Champions over time, from the registry's journal and the versions' tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.registry import ChampionEvent
from tasks.core.paging import every_token
from tasks.registry.journal import history
from tasks.tracking import registry_errors

_TAG = "perennial."
_GATE = f"{_TAG}gate."


@dataclass(frozen=True)
class Reign:
    """The time in which one version was champion.

    Attributes:
        version: The champion.
        since: When it began, ISO 8601 in UTC.
        began: ``promoted`` or ``restored`` (by a rollback).
        by: The decision or the person that made it champion.
        reason: Why, in words.
        run_name: The run that found it, where the version still exists.
        scores: The gate's figures on the primary metric, by opponent and metric.
        until: When it ended, None while it reigns.
        ended: What ended it: ``replaced by version 4``, ``rolled back to version 2: rude replies``.
    """

    version: str
    since: str
    began: str
    by: str
    reason: str
    run_name: str | None
    scores: Mapping[str, str]
    until: str | None = None
    ended: str | None = None


def reigns(events: Sequence[ChampionEvent], tags: Mapping[str, Mapping[str, str]]) -> tuple[Reign, ...]:
    """One entry for each change of champion, oldest first.

    Args:
        events: The journal, oldest first.
        tags: The tags of each version by its number; a version that was deleted is absent.
    """
    found = []
    for number, event in enumerate(events):
        known = tags.get(event.version, {})
        after = events[number + 1] if number + 1 < len(events) else None
        found.append(
            Reign(
                version=event.version,
                since=event.at,
                began="promoted" if event.action == "promote" else "restored",
                by=event.by or ("the gate" if event.action == "promote" else "a rollback"),
                reason=event.reason,
                run_name=known.get(f"{_TAG}run_name"),
                scores={key.removeprefix(_GATE): value for key, value in sorted(known.items()) if key.startswith(_GATE)},
                until=after.at if after else None,
                ended=_ended(after) if after else None,
            )
        )
    return tuple(found)


def chronicle(client: Any, name: str) -> tuple[Reign, ...]:
    """Champions over time as the registry remembers them; empty when there was none."""
    events = history(client, name)
    if not events:
        return ()
    with registry_errors(f"registered model {name}"):
        own = f"name = '{name}'"
        found = every_token(lambda size, token: client.search_model_versions(own, max_results=size, page_token=token))
        tags = {str(one.version): dict(one.tags) for one in found}
    return reigns(events, tags)


def _ended(event: ChampionEvent) -> str:
    if event.action == "rollback":
        return f"rolled back to version {event.version}{f' by {event.by}' if event.by else ''}: {event.reason}"
    return f"replaced by version {event.version}"
