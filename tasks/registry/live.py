"""A rollout in the registry: which version each alias serves while it lasts, and how it ends. Callers hold the model's lock.

``champion`` is the version before the rollout; ``rollout`` is the new one, whose tag holds its share of the traffic.
``champion`` moves when the rollout is complete, and not at all when it is aborted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.registry import ChampionEvent, RolloutVerdict
from tasks.core.errors import InputError, RegistryError
from tasks.core.typed_text import cut
from tasks.registry.aliases import end_rollout
from tasks.registry.approval import approval_in
from tasks.registry.config import RolloutConfig
from tasks.registry.journal import begin_change, complete_pending_change, read_events
from tasks.registry.live_signals import VersionWindow
from tasks.registry.rollout import ROLLOUT, Rollout, advance, note_of, rollout_in, start
from tasks.registry.rollout_verdict import weigh
from tasks.registry.versions import CHALLENGER, CHAMPION, PREVIOUS, UNDER_ROLLOUT, aliases_of, tags_of


@dataclass(frozen=True)
class Traffic:
    """Which versions serve.

    Attributes:
        champion: The version under ``champion``.
        version: The version under rollout, else the one whose rollout was aborted, else the champion.
        rollout: The state of its rollout; None where it never had one.
    """

    champion: str
    version: str
    rollout: Rollout | None


def read_traffic(client: Any, name: str) -> Traffic:
    """Which versions serve now.

    Raises:
        InputError: There is no champion.
    """
    aliases = aliases_of(client, name)
    champion = aliases.get(CHAMPION)
    if champion is None:
        raise InputError(f"registered model {name}", "no champion", "a champion", "Run `perennial retrain` first.")
    version = aliases.get(UNDER_ROLLOUT) or _aborted(client, name, aliases) or champion
    return Traffic(champion, version, rollout_in(tags_of(client, name, version) or {}))


def start_rollout(client: Any, name: str, config: RolloutConfig, now: str) -> Traffic:
    """Starts a rollout: of the version whose rollout was aborted, else of the champion, which ``previous`` replaces.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model.
        config: The plan.
        now: ISO 8601 in UTC.

    Raises:
        InputError: There is no champion.
        RolloutError: One is in progress, or the champion has no other version to share the traffic with.
    """
    complete_pending_change(client, name)
    traffic, aliases = read_traffic(client, name), aliases_of(client, name)
    rest = aliases.get(PREVIOUS) if traffic.version == traffic.champion else traffic.champion
    rollout = start(config, rest, now, traffic.rollout)
    action = "promote" if rollout.state == "complete" else "rollout"
    event = ChampionEvent(action=action, version=traffic.version, replaced=rest, reason="Its rollout started.", at=now)
    begin_change(client, name, event, rollout)
    complete_pending_change(client, name)
    return read_traffic(client, name)


def advance_rollout(client: Any, name: str, metrics: Mapping[str, float], now: str) -> Traffic:
    """Advances one step; the last makes the version champion, and a live metric beyond its limit aborts the rollout.

    Raises:
        InputError: There is no champion, or a metric with a limit is missing.
        RegistryError: The champion changed since the rollout started.
        RolloutError: No rollout is in progress, or its step has not lasted long enough.
    """
    complete_pending_change(client, name)
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
                "Abort the rollout, and retrain: somebody changed the champion in MLflow.",
            )
        approval = approval_in(tags_of(client, name, traffic.version) or {})
        events = reversed(read_events(client, name))
        why = next((event.reason for event in events if event.version == traffic.version), "")
        event = ChampionEvent(
            action="promote",
            version=traffic.version,
            replaced=traffic.champion,
            reason=f"Its rollout is complete. {why}".strip(),
            at=now,
            by=approval.by if approval is not None and approval.verdict == "approve" else None,
        )
        begin_change(client, name, event, changed)
        complete_pending_change(client, name)
    return read_traffic(client, name)


def tick_rollout(client: Any, name: str, windows: Sequence[VersionWindow], now: str) -> tuple[Traffic, RolloutVerdict]:
    """One look at the rollout: it advances, waits or is aborted by the counts of both versions.

    Repeated after a kill it completes what was begun; repeated after an advance it waits, since no window of the new step
    is over.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model.
        windows: From :func:`tasks.registry.live_signals.read_windows`.
        now: ISO 8601 in UTC.

    Raises:
        ConfigError: The rollout watches no signal.
        InputError: There is no champion.
        RegistryError: The champion changed since the rollout started.
    """
    complete_pending_change(client, name)
    traffic = read_traffic(client, name)
    if traffic.rollout is None or traffic.rollout.state != "baking":
        return traffic, RolloutVerdict(action="none", reason="no rollout is in progress")
    verdict = weigh(traffic.rollout, traffic.version, windows, now)
    if verdict.action == "abort":
        return abort_rollout(client, name, cut(verdict.reason, 400), now), verdict
    if verdict.action == "advance":
        return advance_rollout(client, name, {}, now), verdict
    return traffic, verdict


def abort_rollout(client: Any, name: str, reason: str, now: str) -> Traffic:
    """Takes all traffic from the version under rollout; the champion is unchanged.

    Raises:
        InputError: There is no champion.
        RolloutError: No rollout is in progress.
    """
    complete_pending_change(client, name)
    end_rollout(client, name, read_traffic(client, name).version, reason, now)
    return read_traffic(client, name)


def _aborted(client: Any, name: str, aliases: Mapping[str, str]) -> str | None:
    """The challenger, where its rollout beside the present champion was aborted: it may start again."""
    version = aliases.get(CHALLENGER)
    rollout = rollout_in(tags_of(client, name, version) or {}) if version else None
    if rollout is None or rollout.state != "aborted" or rollout.replaced != aliases.get(CHAMPION):
        return None
    return version
