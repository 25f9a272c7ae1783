"""Progress of stages, reported to listeners: the terminal's progress bar, Prefect's progress artifact, a test.

Pure functions take a plain ``on_progress(done, total)`` callable and do not depend on this module; a stage's task gets one
from :func:`report_progress`. Listeners receive starts, advances and ends; they must be fast and never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

OnProgress = Callable[[int, int], None]
"""Called with the number of completed units and the total (0 if unknown)."""


@dataclass(frozen=True)
class Progress:
    """The state of one stage: ``unit`` is the counted unit (rows, steps, tokens); ``detail`` is a short note."""

    stage: str
    done: int
    total: int
    unit: str
    detail: str = ""
    finished: bool = False


class Listener(Protocol):
    """Receives every :class:`Progress`."""

    def __call__(self, progress: Progress, /) -> None:
        """Handles one state."""


_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Adds a listener within the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class StageProgress:
    """Reports the progress of one stage; created by :func:`report_progress`."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._last = Progress(stage, 0, total, unit)
        self.summary = ""

    def __call__(self, done: int, total: int = 0, detail: str = "") -> None:
        """Reports that ``done`` units are completed (``total`` replaces the total unless it is 0)."""
        last = self._last
        self._notify(Progress(last.stage, done, total or last.total, last.unit, detail))

    def summarize(self, summary: str) -> None:
        """Sets the summary for the end of the stage, such as ``312 rows kept, 9 quarantined``."""
        self.summary = summary

    def finish(self, detail: str = "") -> None:
        """Reports the end of the stage, with its summary."""
        last, detail = self._last, detail or self.summary
        self.summary = detail
        self._notify(
            Progress(last.stage, last.total or last.done, last.total or last.done, last.unit, detail, finished=True)
        )

    def _notify(self, progress: Progress) -> None:
        self._last = progress
        for listener in list(_listeners):
            listener(progress)


@contextmanager
def report_progress(stage: str, total: int = 0, unit: str = "rows") -> Iterator[StageProgress]:
    """The progress of a stage; the caller reports its end with :meth:`StageProgress.finish`.

    Example:
        >>> with report_progress("scrub", total=2) as progress:
        ...     progress(1)
        ...     progress.finish("2 rows scrubbed")
    """
    progress = StageProgress(stage, total, unit)
    progress(0)
    yield progress
