"""How a new version takes over the traffic, step by step: a state machine, kept as a tag of its version.

A router needs one rule. Where there is an alias ``rollout``, its version gets ``share`` per cent of the traffic, as its tag
:data:`ROLLOUT` says, and ``champion`` gets the rest; without that alias the champion gets all. So whoever knows only
``champion`` serves what is proven until the rollout is complete, and an abort moves nothing. Every state is one tag,
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
from tasks.registry.config import AbortCondition, RolloutConfig, RolloutStep

ROLLOUT = "perennial.rollout"


class Change(FrozenModel):
    """One change of the share, and why; ``at`` is ISO 8601 in UTC."""

    at: str
    share: int
    note: str


class Rollout(FrozenModel):
    """Where a rollout stands.

    Attributes:
        state: ``baking`` at a step, ``complete`` with all traffic, ``aborted`` with none.
        share: Per cent of the traffic that this version gets.
        since: When this step began, ISO 8601 in UTC.
        replaced: The version that gets the rest.
        steps: The plan.
        abort_when: Limits on live metrics.
        changes: What happened so far, oldest first.
    """

    state: Literal["baking", "complete", "aborted"]
    share: int
    since: str
    replaced: str
    steps: tuple[RolloutStep, ...]
    abort_when: tuple[AbortCondition, ...] = ()
    changes: tuple[Change, ...] = ()

    @property
    def step(self) -> RolloutStep:
        """The step of the plan that holds now."""
        return next((step for step in self.steps if step.share == self.share), self.steps[0])

    @property
    def next_share(self) -> int | None:
        """The share after the next advance; None when there is none."""
        return next((step.share for step in self.steps if step.share > self.share), None) if self.state == "baking" else None

    @property
    def may_advance_at(self) -> dt.datetime:
        """When the present step has baked."""
        return dt.datetime.fromisoformat(self.since) + dt.timedelta(hours=self.step.bake_hours)


def rollout_in(tags: Mapping[str, str]) -> Rollout | None:
    """The rollout that a version's tags hold."""
    return Rollout.model_validate_json(tags[ROLLOUT]) if tags.get(ROLLOUT) else None


def note_of(rollout: Rollout) -> str:
    """What happened last, in words."""
    return rollout.changes[-1].note.removeprefix("aborted: ") if rollout.changes else ""


# --------------------------------------------------------------------------------------------------------- state machine


def start(config: RolloutConfig, replaced: str | None, now: str, present: Rollout | None = None) -> Rollout:
    """A rollout at its first step.

    Args:
        config: The plan.
        replaced: The version that gets the rest of the traffic, None when there is none.
        now: ISO 8601 in UTC.
        present: The rollout that there is; only one that was aborted may start anew, and keeps what happened to it.

    Raises:
        RolloutError: The present one is on its way, or complete; or there is nobody to share the traffic with.
    """
    if replaced is None:
        raise RolloutError("rollout", "a champion that replaced no other", "one that did", "It has all the traffic already.")
    if present is not None and present.state != "aborted":
        raise RolloutError(
            "rollout", f"one that is {_told(present)}", "none, or an aborted one", "See `perennial rollout status`."
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
        changes=(*before, Change(at=now, share=share, note="started")),
    )


def advance(present: Rollout | None, metrics: Mapping[str, float], now: str) -> Rollout:
    """The next step; ``aborted`` when a live metric is beyond its limit, however long the step has baked.

    Args:
        present: Where the rollout stands.
        metrics: Live metrics by name; every metric with a limit must be there.
        now: ISO 8601 in UTC.

    Raises:
        InputError: A metric with a limit is missing, or is no finite number.
        RolloutError: There is no rollout on its way, or its step has not baked long enough.
    """
    rollout = _under_way(present)
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
            f"{rollout.step.bake_hours:g} h of it",
            f"Wait until {until}.",
        )
    share = rollout.next_share
    assert share is not None  # the last step is 100, where nothing is under way
    return _changed(rollout, "complete" if share == 100 else "baking", share, "advanced", now)


def abort(present: Rollout | None, reason: str, now: str) -> Rollout:
    """The rollout aborted: this version gets no traffic.

    Raises:
        RolloutError: There is no rollout on its way.
    """
    return _changed(_under_way(present), "aborted", 0, cut(f"aborted: {reason}", 500), now)


def violations(conditions: Sequence[AbortCondition], metrics: Mapping[str, float]) -> tuple[str, ...]:
    """The limits that the metrics break, in words; a metric that is absent or not a number breaks none."""
    found = []
    for condition in conditions:
        value = metrics.get(condition.metric, math.nan)
        if condition.above is not None and value > condition.above:
            found.append(f"{condition.metric} is {value:g}, above {condition.above:g}")
        if condition.below is not None and value < condition.below:
            found.append(f"{condition.metric} is {value:g}, below {condition.below:g}")
    return tuple(found)


def _under_way(rollout: Rollout | None) -> Rollout:
    if rollout is None or rollout.state != "baking":
        found = "no rollout" if rollout is None else f"a rollout that is {_told(rollout)}"
        raise RolloutError("rollout", found, "one on its way", "Begin one with `perennial rollout start`.")
    return rollout


def _changed(rollout: Rollout, state: Literal["baking", "complete", "aborted"], share: int, note: str, now: str) -> Rollout:
    changes = (*rollout.changes, Change(at=now, share=share, note=note))[-20:]  # a tag holds 5,000 characters
    return rollout.model_copy(update={"state": state, "share": share, "since": now, "changes": changes})


def _told(rollout: Rollout) -> str:
    return f"at {rollout.share} %" if rollout.state == "baking" else rollout.state
