"""`perennial rollout`: changes the rollout of a version, and shows the traffic as lines for a terminal."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast, get_args

from perennial.operations.champion_history import Lines, minute_of
from tasks.contracts.registry import RolloutTick
from tasks.core.documents import parse_json, read_text
from tasks.core.errors import ConfigError, InputError
from tasks.core.typed_text import check_text
from tasks.registry import RegistryConfig, live
from tasks.registry.page import describe_tick, signal_cells
from tasks.registry.task import change_rollout


def rollout_status(config: RegistryConfig) -> live.Traffic:
    """The shares of traffic of the champion and of the version under rollout."""
    from tasks.tracking import connect, registry_errors

    with registry_errors(f"registered model {config.registered_name}"):
        return live.read_traffic(connect(), config.registered_name)


def render_rollout(config: RegistryConfig, kind: str, *, backend: str | None, port: int, key: str) -> str:
    """The present shares of traffic as a router's configuration; see :func:`perennial.operations.routes.render_route`.

    Raises:
        ConfigError: The kind, a backend's name or the key is not valid.
        InputError: There is no champion.
    """
    from perennial.operations.routes import Kind, render_route
    from tasks.tracking import connect, registry_errors

    if kind not in get_args(Kind):
        raise ConfigError("--kind", kind, " or ".join(get_args(Kind)), "Name one of them.")
    name = config.registered_name
    with registry_errors(f"registered model {name}"):
        traffic = live.read_traffic(connect(), name)
    return render_route(cast(Kind, kind), name, traffic, backend=backend, port=port, key=key)


def start_rollout(config: RegistryConfig) -> live.Traffic:
    """Starts a rollout at its first step."""
    return change_rollout(config, lambda client, name: live.start_rollout(client, name, config.rollout, _now()))


def advance_rollout(config: RegistryConfig, metrics: Mapping[str, float]) -> live.Traffic:
    """Advances the rollout by one step, or aborts it for a live metric."""
    return change_rollout(config, lambda client, name: live.advance_rollout(client, name, metrics, _now()))


def is_aborted(traffic: live.Traffic) -> bool:
    """Whether the last rollout was aborted."""
    return traffic.rollout is not None and traffic.rollout.state == "aborted"


def tick_lines(tick: RolloutTick) -> tuple[str, Lines]:
    """One look at a rollout as a title and a line a signal."""
    lines: Lines = [signal_cells(reading) for reading in tick.verdict.readings]
    if lines:
        lines.insert(0, ("signal", "new version", "champion", "odds ratio, at all looks", "limit", ""))
    return describe_tick(tick), lines


def abort_rollout(config: RegistryConfig, reason: str) -> live.Traffic:
    """Aborts the rollout: its version gets no traffic.

    Raises:
        InputError: The reason is empty, too long for the record, or holds control characters.
    """
    reason = check_text(reason, "--reason", 400)
    return change_rollout(config, lambda client, name: live.abort_rollout(client, name, reason, _now()))


def rollout_lines(name: str, traffic: live.Traffic) -> tuple[str, Lines]:
    """A rollout as a title and aligned lines."""
    version, rollout = traffic.version, traffic.rollout
    if rollout is None:
        return f"{name}, version {version}: all traffic", [("rollout", "none"), ("alias champion", f"version {version}")]
    title = f"{name}, version {version}: {rollout.share} % of the traffic, {rollout.state}"
    plan = " -> ".join(f"{step.share} %" for step in rollout.steps)
    lines: Lines = [
        ("plan", plan),
        ("alias champion", f"version {traffic.champion}, {_champion_share(traffic)} % of the traffic"),
    ]
    if rollout.state == "baking":
        lines.append(("alias rollout", f"version {version}, {rollout.share} % of the traffic"))
    if rollout.next_share is not None:
        after = rollout.may_advance_at.isoformat(timespec="minutes")
        lines.append(("next", f"{rollout.next_share} %, not before {after}"))
    limits = [
        f"{rule.metric} {side} {limit:g}"
        for rule in rollout.abort_when
        for side, limit in (("above", rule.above), ("below", rule.below))
        if limit is not None
    ]
    watched = [f"{signal.name} {signal.max_odds_ratio:g}" for signal in rollout.watch.signals]
    if watched:
        limit = "largest odds ratio to the champion"
        lines.append(("watches", f"{', '.join(watched)} ({limit}), alpha {rollout.watch.alpha:g}"))
    if limits or not watched:
        lines.append(("aborts when", ", ".join(limits) or "never automatically: no limits are configured"))
    lines += [(minute_of(change.at), f"{change.share} %: {change.note}") for change in rollout.changes]
    if rollout.state == "aborted":
        lines.append(("now", "the champion has all the traffic"))
    return title, lines


def _champion_share(traffic: live.Traffic) -> int:
    """The champion's share of the traffic."""
    is_active = traffic.rollout is not None and traffic.rollout.state == "baking"
    return 100 - traffic.rollout.share if is_active and traffic.rollout else 100


def read_metrics(file: Path | None, pairs: Sequence[str]) -> dict[str, float]:
    """Live metrics from a JSON file and from ``NAME=VALUE`` pairs, which take precedence.

    Raises:
        InputError: The file or a pair does not map names to finite numbers, or the file cannot be read.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            document = parse_json(read_text(file))
        except (OSError, ValueError) as error:
            raise InputError(str(file), type(error).__name__, "a JSON file", "Correct the path or the file.") from error
        if not isinstance(document, dict):
            raise InputError(str(file), type(document).__name__, "a mapping of names to numbers", "Correct the file.")
        values.update(document)
    values.update({name: value for name, _, value in (pair.partition("=") for pair in pairs)})
    metrics: dict[str, float] = {}
    for name, value in values.items():
        try:
            metrics[name] = math.nan if isinstance(value, bool) else float(str(value))
        except ValueError:
            metrics[name] = math.nan
        if not math.isfinite(metrics[name]):
            raise InputError(
                f"live metric {name}", "no finite number", "a number", "Give NAME=VALUE, such as error_rate=0.02."
            )
    return metrics


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
