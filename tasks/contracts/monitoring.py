"""Windows of production and their measurements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime

from tasks.contracts.base import Contract
from tasks.contracts.preparation import Snapshot
from tasks.contracts.references import DatasetRef, FileRef


class LogWindow(Snapshot):
    """The requests of one window of a production log.

    ``dataset`` holds the readable conversations; ``lines`` (a table) holds the figures of every request, without text.
    """

    lines: DatasetRef
    window_start: AwareDatetime
    window_end: AwareDatetime


class SignalMeasurement(Contract):
    """One figure of a window and whether it exceeds its limit; ``violated`` is None if not evaluated, see ``note``."""

    name: str
    signal: str
    value: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    limit: float | None = None
    num_samples: int = 0
    violated: bool | None = None
    note: str = ""


class DriftReport(Contract):
    """Drift of the window's requests from the champion's training rows; ``terms`` is a table of new words."""

    readings: tuple[SignalMeasurement, ...]
    vectors: str = ""
    reference: DatasetRef | None = None
    terms: DatasetRef | None = None


class WindowCheck(Contract):
    """The evaluation of one window: measurements, violated signals, and those of them that raise an alert."""

    model: str
    window_start: AwareDatetime
    window_end: AwareDatetime
    num_requests: int
    status: Literal["healthy", "violated", "insufficient"]
    violated: tuple[str, ...] = ()
    alerted: tuple[str, ...] = ()
    readings: tuple[SignalMeasurement, ...] = ()
    hours_unwatched: float = 0.0


class CheckHistory(Contract):
    """The evaluated windows of a model, oldest first; the store keeps it under ``monitoring/<model>``."""

    windows: tuple[WindowCheck, ...] = ()


class CheckOutcome(Contract):
    """The outcome of a check of production; ``runs`` has the runs of ``retrain-on-alert`` by signal."""

    check: WindowCheck
    page: FileRef
    record: FileRef
    pairs: FileRef | None = None
    num_pairs: int = 0
    runs: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
