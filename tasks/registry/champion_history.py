"""Champions over time, from the registry's journal and the versions' tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.registry import ChampionEvent, Verdict, known_as
from tasks.core.paging import every_token
from tasks.registry.journal import champion_events
from tasks.registry.verdicts import verdicts_in
from tasks.tracking import registry_errors

_TAG = "perennial."
_GATE = f"{_TAG}gate."


@dataclass(frozen=True)
class ChampionTenure:
    """The time in which one version was champion.

    Attributes:
        version: The champion.
        since: When it became champion, ISO 8601 in UTC.
        began: ``promoted`` or ``restored`` (by a rollback).
        by: The decision or the people that made it champion, each with how the name is known.
        reason: Why, in words.
        run_name: The run that promoted it; for a version of an older release the one that trained it, while that exists.
        scores: The gate's figures on the primary metric of that run, by opponent and metric.
        verdicts: Every verdict of the gate on it, oldest first, while the version exists.
        until: When it ended, None while it is champion.
        ended: What ended it: ``replaced by version 4``, ``rolled back to version 2: rude replies``.
    """

    version: str
    since: str
    began: str
    by: str
    reason: str
    run_name: str | None
    scores: Mapping[str, str]
    verdicts: tuple[Verdict, ...] = ()
    until: str | None = None
    ended: str | None = None


def champion_tenures(client: Any, name: str) -> tuple[ChampionTenure, ...]:
    """The champions of a registered model over time; empty when there was none."""
    events = champion_events(client, name)
    if not events:
        return ()
    with registry_errors(f"registered model {name}"):
        query = f"name = '{name}'"
        pages = every_token(lambda size, token: client.search_model_versions(query, max_results=size, page_token=token))
        tags = {str(version.version): dict(version.tags) for version in pages}
    return tenures(events, tags)


def tenures(events: Sequence[ChampionEvent], tags: Mapping[str, Mapping[str, str]]) -> tuple[ChampionTenure, ...]:
    """One tenure for each change of champion, oldest first.

    Args:
        events: The changes of champion, oldest first.
        tags: The tags of each version by its number; a version that was deleted is absent.
    """
    following, runs, found = [*events[1:], None], dict[str, str | None](), []
    for event, after in zip(events, following, strict=True):
        if event.action == "promote":
            runs[event.version] = event.run
        found.append(_tenure(event, after, tags.get(event.version, {}), runs.get(event.version)))
    return tuple(found)


def _tenure(event: ChampionEvent, after: ChampionEvent | None, tags: Mapping[str, str], run: str | None) -> ChampionTenure:
    promoted, verdicts = event.action == "promote", verdicts_in(tags)
    named = {key.removeprefix(_GATE): value for key, value in sorted(tags.items()) if key.startswith(_GATE)}
    return ChampionTenure(
        version=event.version,
        since=event.at,
        began="promoted" if promoted else "restored",
        by=known_as(event.by, event.identity) if event.by else ("the gate" if promoted else "a rollback"),
        reason=event.reason,
        run_name=run or tags.get(f"{_TAG}run_name"),
        scores=next((verdict.figures for verdict in reversed(verdicts) if verdict.run_name == run), named),
        verdicts=verdicts,
        until=after.at if after else None,
        ended=_describe_end(after) if after else None,
    )


def _describe_end(event: ChampionEvent) -> str:
    if event.action == "rollback":
        return f"rolled back to version {event.version}{f' by {event.by}' if event.by else ''}: {event.reason}"
    return f"replaced by version {event.version}"
