"""Counts of what is served, by version and window, appended to the file that `perennial rollout tick` reads."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LATENCY_BOUNDS_MS = (50, 100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 51_200)


@dataclass
class _Counts:
    requests: int = 0
    errors: int = 0
    guard_hits: int = 0
    latencies: list[int] = field(default_factory=lambda: [0] * (len(LATENCY_BOUNDS_MS) + 1))

    def line(self, version: str, start: dt.datetime, end: dt.datetime, *, guarded: bool) -> dict[str, Any]:
        signals = {"error_rate": self.errors} | ({"guard_hit_rate": self.guard_hits} if guarded else {})
        return {
            "version": version,
            "start": start.isoformat(),
            "end": end.isoformat(),
            "requests": self.requests,
            "signals": {name: {"events": events, "trials": self.requests} for name, events in signals.items()},
            "latency_ms": {
                **{str(bound): sum(self.latencies[: place + 1]) for place, bound in enumerate(LATENCY_BOUNDS_MS)},
                "+Inf": sum(self.latencies),
            },
        }


class LiveCounts:
    """Counts requests; a window is written once, when it is over, for all versions in one write.

    A killed process loses the counts of its open window and repeats none.

    Args:
        path: The file; None counts nothing. One process writes to a file.
        window: Length of a window.
        guarded: Whether there is a guard whose hits are counted.
    """

    def __init__(self, path: Path | None, window: dt.timedelta = dt.timedelta(minutes=5), *, guarded: bool = False) -> None:
        self._path, self._window, self._lock, self._guarded = path, window, threading.Lock(), guarded
        self._start: dt.datetime | None = None
        self._counts: dict[str, _Counts] = {}

    def add(self, version: str, milliseconds: float, *, failed: bool, guarded: bool) -> None:
        """Counts a request that is answered."""
        with self._lock:
            counts = self._counts.setdefault(version, _Counts())
            counts.requests += 1
            counts.errors += failed
            counts.guard_hits += guarded
            counts.latencies[sum(bound < milliseconds for bound in LATENCY_BOUNDS_MS)] += 1

    def turn(self, serving: Iterable[str], now: dt.datetime, *, last: bool = False) -> None:
        """Writes the window if it is over, with a line for each serving version; ``last`` writes an open one too."""
        with self._lock:
            if self._start is None:
                self._start = now
            if now - self._start < self._window and not (last and now > self._start):
                return
            lines = [
                self._counts.get(version, _Counts()).line(version, self._start, now, guarded=self._guarded)
                for version in sorted({*serving, *self._counts})
            ]
            self._start, self._counts = now, {}
        if self._path is not None and lines:
            self._append("".join(f"{json.dumps(line)}\n" for line in lines).encode())

    def _append(self, text: bytes) -> None:
        assert self._path is not None
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
        except OSError as error:  # serving goes on; the rollout waits for counts
            logger.error("serving: the live signals of a window are lost: %s", type(error).__name__)
