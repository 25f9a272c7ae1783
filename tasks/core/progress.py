"""How far a stage is, told to whoever listens: the terminal's progress bar, Prefect's progress artifact, a test.

Pure functions take a plain ``on_progress(done, total)`` callable and know nothing of this module; a stage's task gets one
from :func:`report_progress`. Listeners are told of starts, advances and ends; they must be quick and never raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

OnProgress = Callable[[int, int], None]
"""Called with the number of units done and the total (0 when it is not known)."""


@dataclass(frozen=True)
class Progress:
    """The state of one stage: ``unit`` is what is counted (rows, steps, tokens); ``detail`` is a short free note."""

    stage: str
    done: int
    total: int
    unit: str
    detail: str = ""
    finished: bool = False


class Listener(Protocol):
    """Receives every :class:`Progress`."""

    def __call__(self, progress: Progress, /) -> None:
        """Takes note of one state."""


_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Adds a listener for the length of the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class StageProgress:
    """Reports one stage's advance; made by :func:`report_progress`."""

    def __init__(self, stage: str, total: int, unit: str) -> None:
        self._last = Progress(stage, 0, total, unit)
        self.summary = ""

    def __call__(self, done: int, total: int = 0, detail: str = "") -> None:
        """Tells the listeners that ``done`` units are done (``total`` replaces the total when it is not 0)."""
        last = self._last
        self._tell(Progress(last.stage, done, total or last.total, last.unit, detail))

    def summarize(self, summary: str) -> None:
        """Keeps what the stage came to, such as ``312 rows kept, 9 quarantined``, for its end."""
        self.summary = summary

    def finish(self, detail: str = "") -> None:
        """Tells the listeners that the stage has ended, with its summary."""
        last, detail = self._last, detail or self.summary
        self.summary = detail
        self._tell(Progress(last.stage, last.total or last.done, last.total or last.done, last.unit, detail, finished=True))

    def _tell(self, progress: Progress) -> None:
        self._last = progress
        for listener in list(_listeners):
            listener(progress)


@contextmanager
def report_progress(stage: str, total: int = 0, unit: str = "rows") -> Iterator[StageProgress]:
    """Opens a stage's progress; an ordinary end is reported as finished, an exception is not.

    Example:
        >>> with report_progress("scrub", total=2) as progress:
        ...     progress(1)
        ...     progress.finish("2 rows scrubbed")
    """
    progress = StageProgress(stage, total, unit)
    progress(0)
    yield progress
