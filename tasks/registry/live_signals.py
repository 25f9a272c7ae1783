"""The file of live signals: counts by version and window, which a service or its metrics system appends.

One JSON object a line, for each version and window; no text of a request::

    {"version": "8", "start": "2026-11-02T10:00:00Z", "end": "2026-11-02T10:05:00Z", "requests": 61,
     "signals": {"error_rate": {"events": 1, "trials": 61}, "thumbs_down_rate": {"events": 0, "trials": 4}},
     "latency_ms": {"250": 40, "1000": 58, "+Inf": 61}}

Every signal counts bad events. ``latency_ms`` is cumulative by upper bound, as in Prometheus. The versions have the same
windows, so that both are compared at the same hours.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, ValidationError, field_validator, model_validator

from tasks.contracts.base import FrozenModel
from tasks.core.documents import read_text
from tasks.core.errors import InputError
from tasks.stats.sequences import Table

SLOW = "slow_rate"
"""The signal that the latencies give: requests slower than the champion's 95th percentile."""
_QUANTILE = 0.95
_Count = Annotated[int, Field(ge=0, strict=True)]


class EventCount(FrozenModel):
    """Bad events among so many trials."""

    events: _Count
    trials: _Count

    @model_validator(mode="after")
    def _events_are_trials(self) -> Self:
        if self.events > self.trials:
            raise ValueError("more events than trials")
        return self


class VersionWindow(FrozenModel):
    """What one version did in one window."""

    version: str = Field(min_length=1, max_length=100)
    start: AwareDatetime
    end: AwareDatetime
    requests: _Count
    signals: Mapping[str, EventCount] = {}
    latency_ms: Mapping[float, _Count] = {}

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, version: object) -> object:
        return str(version) if isinstance(version, int) and not isinstance(version, bool) else version

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.start >= self.end:
            raise ValueError("the window ends before it starts")
        if SLOW in self.signals:
            raise ValueError(f"`{SLOW}` comes from `latency_ms`; count no signal of that name")
        if not all(bound > 0 for bound in self.latency_ms):  # not a number neither
            raise ValueError("a bound of `latency_ms` must be above 0")
        counts = [self.latency_ms[bound] for bound in sorted(self.latency_ms)]
        if any(upper < lower for lower, upper in pairwise([0, *counts])) or (counts and math.inf not in self.latency_ms):
            raise ValueError("`latency_ms` must not fall, and must end with the bound `+Inf`")
        return self


@dataclass(frozen=True)
class Pair:
    """One window of the new version and of the champion."""

    new: VersionWindow
    champion: VersionWindow

    @property
    def hours(self) -> float:
        """Length of the window."""
        return (self.new.end - self.new.start) / dt.timedelta(hours=1)


def read_windows(path: Path) -> tuple[VersionWindow, ...]:
    """All windows of a file, by start and version. A last line without its line end is still being written and is ignored.

    Raises:
        InputError: The file cannot be read; a line is no window; a version has two windows that overlap and differ.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise InputError(
            str(path), type(error).__name__, "a file of live signals", "Correct the path or the file."
        ) from error
    found: dict[tuple[str, dt.datetime, dt.datetime], VersionWindow] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        if not line.strip():
            continue
        window = _read_line(line, f"{path}, line {number}")
        known = found.setdefault((window.version, window.start, window.end), window)
        if known != window:
            raise InputError(
                f"{path}, line {number}",
                f"other counts of version {window.version} from {window.start.isoformat()} than a line before",
                "one line a version and window",
                "Write a window once, when it is over.",
            )
    windows = sorted(found.values(), key=lambda window: (window.version, window.start, window.end))
    for before, after in pairwise(windows):
        if before.version == after.version and after.start < before.end:
            raise InputError(
                str(path),
                f"windows of version {after.version} that overlap at {after.start.isoformat()}",
                "windows that follow one another",
                "Count each request in one window.",
            )
    return tuple(sorted(windows, key=lambda window: (window.start, window.version)))


def pair_windows(windows: Iterable[VersionWindow], new: str, champion: str) -> list[Pair]:
    """The windows that both versions have, oldest first."""
    known = {(window.version, window.start, window.end): window for window in windows}
    return [
        Pair(window, known[champion, start, end])
        for (version, start, end), window in known.items()
        if version == new and (champion, start, end) in known
    ]


def tables_of(pairs: Sequence[Pair], signal: str) -> list[Table]:
    """The tables of a signal, of the windows in which both versions counted it."""
    if signal == SLOW:
        return _slow_tables(pairs)
    counted = [(p.new.signals[signal], p.champion.signals[signal]) for p in pairs if _both_count(p, signal)]
    return [Table(new.events, new.trials, champion.events, champion.trials) for new, champion in counted]


def _both_count(pair: Pair, signal: str) -> bool:
    return signal in pair.new.signals and signal in pair.champion.signals


def _slow_tables(pairs: Sequence[Pair]) -> list[Table]:
    """Requests beyond the champion's 95th percentile of the windows before: the bound is fixed before what it divides."""
    tables: list[Table] = []
    before: dict[float, int] = {}
    for pair in pairs:
        new, champion = pair.new.latency_ms, pair.champion.latency_ms
        if not new or new.keys() != champion.keys():
            continue
        bounds = sorted(bound for bound in champion if bound != math.inf)
        if bounds and before.keys() == champion.keys() and before[math.inf]:
            enough = _QUANTILE * before[math.inf]
            limit = next((bound for bound in bounds if before[bound] >= enough), bounds[-1])
            tables.append(
                Table(
                    new[math.inf] - new[limit],
                    new[math.inf],
                    champion[math.inf] - champion[limit],
                    champion[math.inf],
                )
            )
        same = before.keys() == champion.keys()
        before = {bound: count + (before[bound] if same else 0) for bound, count in champion.items()}
    return tables


def _read_line(line: str, where: str) -> VersionWindow:
    try:
        return VersionWindow.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the line"
        raise InputError(
            where, f"{place}: {fault['msg']}", "a version's counts in a window", "See docs/operating.md, live signals."
        ) from None
