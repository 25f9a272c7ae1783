"""A rollout in the registry: which alias serves what while it lasts, and how it ends. Callers hold the model's lock.

``champion`` is the version that was champion before; ``rollout`` is the new one, whose tag says its share of the traffic.
Whoever loads ``champion`` never gets a version by surprise: it moves when the rollout is complete, and not at all when that
is aborted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tasks.contracts.registry import ChampionEvent
from tasks.core.errors import InputError, RegistryError
from tasks.registry.aliases import end_rollout
from tasks.registry.approval import approval_in
from tasks.registry.config import RolloutConfig
from tasks.registry.journal import begin, events, settle
from tasks.registry.rollout import ROLLOUT, Rollout, advance, note_of, rollout_in, start
from tasks.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, tags_of


@dataclass(frozen=True)
class Traffic:
    """Who serves.

    Attributes:
        champion: The version under ``champion``.
        version: The version that the rollout is of: under way, else the last one that can be told of.
        rollout: Where it stands; None where the champion never had one.
    """

    champion: str
    version: str
    rollout: Rollout | None


def read_traffic(client: Any, name: str) -> Traffic:
    """Who serves now.

    Raises:
        InputError: There is no champion.
    """
    aliases = aliases_of(client, name)
    champion = aliases.get(CHAMPION)
    if champion is None:
        raise InputError(f"registered model {name}", "no champion", "a champion", "Run `perennial retrain` first.")
    under_way = aliases.get(UNDER_ROLLOUT)
    version = under_way or _aborted(client, name, aliases) or champion
    return Traffic(champion, version, rollout_in(tags_of(client, name, version) or {}))


def start_rollout(client: Any, name: str, config: RolloutConfig, now: str) -> Traffic:
    """Begins a rollout: of the version whose rollout was aborted, else of the champion, in whose place ``previous`` comes.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model.
        config: The plan.
        now: ISO 8601 in UTC.

    Raises:
        InputError: There is no champion.
        RolloutError: One is on its way, or the champion has all the traffic and nobody to share it with.
    """
    settle(client, name)
    traffic, aliases = read_traffic(client, name), aliases_of(client, name)
    rest = aliases.get(PREVIOUS) if traffic.version == traffic.champion else traffic.champion
    rollout = start(config, rest, now, traffic.rollout)
    action = "promote" if rollout.state == "complete" else "rollout"
    event = ChampionEvent(action=action, version=traffic.version, replaced=rest, reason="Its rollout began.", at=now)
    begin(client, name, event, rollout)
    settle(client, name)
    return read_traffic(client, name)


def advance_rollout(client: Any, name: str, metrics: Mapping[str, float], now: str) -> Traffic:
    """One step on; the last makes the version champion, and a live metric beyond its limit aborts.

    Raises:
        InputError: There is no champion, or a metric with a limit is missing.
        RegistryError: The champion is no longer the one that the rollout began beside.
        RolloutError: No rollout is on its way, or its step has not baked long enough.
    """
    settle(client, name)
    traffic = read_traffic(client, name)
    changed = advance(traffic.rollout, metrics, now)
    if changed.state == "aborted":
        end_rollout(client, name, traffic.version, note_of(changed), now)
    elif changed.state == "baking":
        client.set_model_version_tag(name, traffic.version, ROLLOUT, changed.model_dump_json())
    else:
        if traffic.champion != changed.replaced:
            raise RegistryError(
                f"registered model {name}",
                f"champion version {traffic.champion}",
                f"version {changed.replaced}, beside which version {traffic.version} was rolled out",
                "Abort the rollout, and retrain: the champion was changed by hand.",
            )
        asked = approval_in(tags_of(client, name, traffic.version) or {})
        why = next((one.reason for one in reversed(events(client, name)) if one.version == traffic.version), "")
        event = ChampionEvent(
            action="promote",
            version=traffic.version,
            replaced=traffic.champion,
            reason=f"Its rollout is complete. {why}".strip(),
            at=now,
            by=asked.by if asked is not None and asked.verdict == "approve" else None,
        )
        begin(client, name, event, changed)
        settle(client, name)
    return read_traffic(client, name)


def abort_rollout(client: Any, name: str, reason: str, now: str) -> Traffic:
    """Takes all traffic from the version under rollout; the champion stays where it is.

    Raises:
        InputError: There is no champion.
        RolloutError: No rollout is on its way.
    """
    settle(client, name)
    end_rollout(client, name, read_traffic(client, name).version, reason, now)
    return read_traffic(client, name)


def _aborted(client: Any, name: str, aliases: Mapping[str, str]) -> str | None:
    """The challenger, where its rollout beside this very champion was aborted: that one may begin again."""
    version = aliases.get(CHALLENGER)
    rollout = rollout_in(tags_of(client, name, version) or {}) if version else None
    if rollout is None or rollout.state != "aborted" or rollout.replaced != aliases.get(CHAMPION):
        return None
    return version
