"""Whether a rollout advances, waits or is aborted: a pure function of its state and of the counts of both versions.

All windows since the rollout started count together, whatever the share: an abort needs evidence that a signal's odds exceed
their limit, valid however often it is looked for (see :mod:`tasks.stats.sequences`). A window during which the share changed
is left out: its two versions served different minutes.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Sequence

from tasks.contracts.registry import RolloutVerdict, SignalReading
from tasks.core.errors import ConfigError
from tasks.registry.config import LiveSignal
from tasks.registry.live_signals import Pair, VersionWindow, pair_windows, tables_of
from tasks.registry.rollout import Rollout
from tasks.stats.sequences import odds_ratio_sequence


def weigh(rollout: Rollout, version: str, windows: Iterable[VersionWindow], now: str) -> RolloutVerdict:
    """What to do with a rollout in progress.

    Args:
        rollout: Its state, which holds the limits that it started with.
        version: The version under rollout; ``rollout.replaced`` is the champion.
        windows: From :func:`tasks.registry.live_signals.read_windows`.
        now: ISO 8601 in UTC; windows that end later are not over, and no step advances before its bake time.

    Raises:
        ConfigError: The rollout watches no signal.
    """
    watch, present = rollout.watch, dt.datetime.fromisoformat(now)
    if not watch.signals:
        todo = "Name them, abort the rollout and start it again; or advance it by hand."
        raise ConfigError("registry.rollout.watch.signals", "nothing when the rollout started", "at least one signal", todo)
    pairs = [p for p in pair_windows(windows, version, rollout.replaced) if p.new.end <= present and _is_whole(p, rollout)]
    readings = tuple(_read(signal, pairs, watch.alpha / len(watch.signals)) for signal in watch.signals)
    if worse := [reading for reading in readings if reading.exceeds]:
        return RolloutVerdict(action="abort", reason="; ".join(map(describe, worse)), readings=readings)
    since = dt.datetime.fromisoformat(rollout.since)
    reasons = _reasons_to_wait(rollout, [pair for pair in pairs if pair.new.start >= since], present)
    if reasons:
        return RolloutVerdict(action="wait", reason="; ".join(reasons), readings=readings)
    reason = "no signal is shown to exceed its limit"
    return RolloutVerdict(action="advance", reason=reason, readings=readings)


def describe(reading: SignalReading) -> str:
    """A signal's counts in words."""
    counts = f"{reading.events:,} of {reading.trials:,} against {reading.champion_events:,} of {reading.champion_trials:,}"
    if reading.low is None or not reading.exceeds:
        return f"{reading.name}: {counts}"
    return f"{reading.name}: {counts}, odds at least {reading.low:.2f} times the champion's, limit {reading.limit:g}"


def _is_whole(pair: Pair, rollout: Rollout) -> bool:
    """Whether the share was constant in a window since the rollout started."""
    start = next((change.at for change in reversed(rollout.changes) if change.note == "started"), rollout.since)
    if pair.new.start < dt.datetime.fromisoformat(start):
        return False
    moments = (dt.datetime.fromisoformat(change.at) for change in rollout.changes)
    return not any(pair.new.start < moment < pair.new.end for moment in moments)


def _read(signal: LiveSignal, pairs: Sequence[Pair], alpha: float) -> SignalReading:
    tables = tables_of(pairs, signal.name)
    found = odds_ratio_sequence(tables, reference=signal.max_odds_ratio, alpha=alpha)
    events, trials = sum(table.events for table in tables), sum(table.trials for table in tables)
    other_events, other_trials = sum(t.other_events for t in tables), sum(t.other_trials for t in tables)
    difference = events / trials - other_events / other_trials if trials and other_trials else 0.0
    is_shown = found.evidence >= 1 / alpha
    return SignalReading(
        name=signal.name,
        events=events,
        trials=trials,
        champion_events=other_events,
        champion_trials=other_trials,
        low=found.interval.low if found.interval.low > 0 else None,
        high=found.interval.high if math.isfinite(found.interval.high) else None,
        limit=signal.max_odds_ratio,
        exceeds=is_shown and difference > signal.max_difference,
    )


def _reasons_to_wait(rollout: Rollout, pairs: Sequence[Pair], now: dt.datetime) -> list[str]:
    """What is missing before the next step; ``pairs`` are the windows of the present one."""
    reasons = []
    if rollout.abort_when:
        reasons.append("registry.rollout.abort_when has limits on figures that a person gives: `perennial rollout advance`")
    if now < rollout.may_advance_at:
        reasons.append(f"the bake time lasts until {rollout.may_advance_at.isoformat(timespec='minutes')}")
    if rollout.share == 0:  # no requests are expected
        return reasons
    watch, hours = rollout.watch, sum(pair.hours for pair in pairs)
    if hours < rollout.step.bake_hours - 1e-9:
        reasons.append(f"{hours:.1f} h of windows with counts of both versions, {rollout.step.bake_hours:g} h are needed")
    requests = sum(pair.new.requests for pair in pairs)
    if requests < watch.min_requests:
        reasons.append(f"{requests:,} of {watch.min_requests:,} requests at {rollout.share} %")
    measured = requests / max(1, requests + sum(pair.champion.requests for pair in pairs))
    if requests and not rollout.share / 200 <= measured <= rollout.share / 50:
        reasons.append(f"the new version got {measured:.1%} of the requests, not {rollout.share} %: look at the router")
    for signal in watch.signals:
        tables = tables_of(pairs, signal.name)
        fewest = min(sum(table.trials for table in tables), sum(table.other_trials for table in tables))
        if fewest < watch.min_trials:
            reasons.append(f"{signal.name} was counted {fewest:,} times in both versions, {watch.min_trials:,} are needed")
    return reasons
