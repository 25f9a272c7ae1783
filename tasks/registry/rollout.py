"""How a new version takes over the traffic, step by step: a state machine, kept as a tag of its version.

A router needs one rule. Where there is an alias ``rollout``, its version gets ``share`` per cent of the traffic, as its tag
:data:`ROLLOUT` says, and ``champion`` gets the rest; without that alias the champion gets all. A router that knows only
``champion`` serves the former version until the rollout is complete, and an abort moves no alias. Every state is one tag,
written in one step.

::

    baking (0 %) ── advance ──> baking (5 %) ── advance ──> baking (25 %) ── advance ──> complete (100 %): champion
        └──────────────────────────┴── abort, or a live metric beyond its limit ──┴──> aborted (0 %)
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Literal

from tasks.contracts.base import FrozenModel
from tasks.core.errors import InputError, RolloutError
from tasks.core.typed_text import cut
from tasks.registry.config import AbortCondition, RolloutConfig, RolloutStep, WatchConfig

ROLLOUT = "perennial.rollout"


class Change(FrozenModel):
    """One change of the share, and why; ``at`` is ISO 8601 in UTC."""

    at: str
    share: int
    note: str


class Rollout(FrozenModel):
    """The state of a rollout.

    Attributes:
        state: ``baking`` at a step, ``complete`` with all traffic, ``aborted`` with none.
        share: Per cent of the traffic that this version gets.
        since: When this step began, ISO 8601 in UTC.
        replaced: The version that gets the rest.
        steps: The plan.
        abort_when: Limits on live metrics.
        watch: What is compared with the champion.
        changes: What happened so far, oldest first.
    """

    state: Literal["baking", "complete", "aborted"]
    share: int
    since: str
    replaced: str
    steps: tuple[RolloutStep, ...]
    abort_when: tuple[AbortCondition, ...] = ()
    watch: WatchConfig = WatchConfig()
    changes: tuple[Change, ...] = ()

    @property
    def step(self) -> RolloutStep:
        """The present step of the plan."""
        return next((step for step in self.steps if step.share == self.share), self.steps[0])

    @property
    def next_share(self) -> int | None:
        """The share after the next advance; None when there is none."""
        return next((step.share for step in self.steps if step.share > self.share), None) if self.state == "baking" else None

    @property
    def may_advance_at(self) -> dt.datetime:
        """When the present step has lasted long enough."""
        return dt.datetime.fromisoformat(self.since) + dt.timedelta(hours=self.step.bake_hours)


def rollout_in(tags: Mapping[str, str]) -> Rollout | None:
    """The rollout in a version's tags."""
    return Rollout.model_validate_json(tags[ROLLOUT]) if tags.get(ROLLOUT) else None


def note_of(rollout: Rollout) -> str:
    """The last change, in words."""
    return rollout.changes[-1].note.removeprefix("aborted: ") if rollout.changes else ""


# --------------------------------------------------------------------------------------------------------- state machine


def start(config: RolloutConfig, replaced: str | None, now: str, present: Rollout | None = None) -> Rollout:
    """A rollout at its first step.

    Args:
        config: The plan.
        replaced: The version that gets the rest of the traffic, None when there is none.
        now: ISO 8601 in UTC.
        present: The version's rollout so far; only an aborted one may start again, and it keeps its changes.

    Raises:
        RolloutError: The present one is in progress or complete; or no other version shares the traffic.
    """
    if replaced is None:
        raise RolloutError("rollout", "a champion that replaced no other", "one that did", "It has all the traffic already.")
    if present is not None and present.state != "aborted":
        raise RolloutError(
            "rollout",
            f"a rollout that is {_format_state(present)}",
            "none, or an aborted one",
            "See `perennial rollout status`.",
        )
    share = config.steps[0].share
    before = present.changes if present else ()
    return Rollout(
        state="complete" if share == 100 else "baking",
        share=share,
        since=now,
        replaced=replaced,
        steps=config.steps,
        abort_when=config.abort_when,
        watch=config.watch,
        changes=(*before, Change(at=now, share=share, note="started")),
    )


def advance(present: Rollout | None, metrics: Mapping[str, float], now: str) -> Rollout:
    """The next step; ``aborted`` when a live metric is beyond its limit, however long the step has lasted.

    Args:
        present: The state of the rollout.
        metrics: Live metrics by name; every metric with a limit is required.
        now: ISO 8601 in UTC.

    Raises:
        InputError: A metric with a limit is missing, or is not a finite number.
        RolloutError: No rollout is in progress, or its step has not lasted long enough.
    """
    rollout = _in_progress(present)
    missing = sorted({c.metric for c in rollout.abort_when if not math.isfinite(metrics.get(c.metric, math.nan))})
    violated = violations(rollout.abort_when, metrics)
    if violated:
        return abort(rollout, "; ".join(violated), now)
    if missing:
        raise InputError(
            "live metrics", f"no figure for {', '.join(missing)}", "one for every limit", "Give --metric NAME=VALUE."
        )
    if dt.datetime.fromisoformat(now) < rollout.may_advance_at:
        until = rollout.may_advance_at.isoformat(timespec="seconds")
        raise RolloutError(
            "rollout",
            f"{rollout.share} % since {rollout.since}",
            f"{rollout.step.bake_hours:g} h at this share",
            f"Wait until {until}.",
        )
    share = rollout.next_share
    assert share is not None  # the last step is 100, where the rollout is complete
    return _changed(rollout, "complete" if share == 100 else "baking", share, "advanced", now)


def abort(present: Rollout | None, reason: str, now: str) -> Rollout:
    """The rollout aborted: this version gets no traffic.

    Raises:
        RolloutError: No rollout is in progress.
    """
    return _changed(_in_progress(present), "aborted", 0, cut(f"aborted: {reason}", 500), now)


def violations(conditions: Sequence[AbortCondition], metrics: Mapping[str, float]) -> tuple[str, ...]:
    """The limits that the metrics break, in words; a metric that is absent or not a number breaks none."""
    broken = []
    for condition in conditions:
        value = metrics.get(condition.metric, math.nan)
        if condition.above is not None and value > condition.above:
            broken.append(f"{condition.metric} is {value:g}, above {condition.above:g}")
        if condition.below is not None and value < condition.below:
            broken.append(f"{condition.metric} is {value:g}, below {condition.below:g}")
    return tuple(broken)


def _in_progress(rollout: Rollout | None) -> Rollout:
    if rollout is None or rollout.state != "baking":
        found = "no rollout" if rollout is None else f"a rollout that is {_format_state(rollout)}"
        raise RolloutError("rollout", found, "one in progress", "Begin one with `perennial rollout start`.")
    return rollout


def _changed(rollout: Rollout, state: Literal["baking", "complete", "aborted"], share: int, note: str, now: str) -> Rollout:
    changes = (*rollout.changes, Change(at=now, share=share, note=note))[-20:]  # a tag holds 5,000 characters
    return rollout.model_copy(update={"state": state, "share": share, "since": now, "changes": changes})


def _format_state(rollout: Rollout) -> str:
    return f"at {rollout.share} %" if rollout.state == "baking" else rollout.state
