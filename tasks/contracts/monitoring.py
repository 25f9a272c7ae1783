"""Windows of production and what was measured in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import AwareDatetime

from tasks.contracts.base import Contract
from tasks.contracts.preparation import Snapshot
from tasks.contracts.references import DatasetRef, FileRef


class LogWindow(Snapshot):
    """The requests of one window of a production log.

    ``dataset`` holds the conversations that can be read, ``lines`` (a table) what is known of every request, without text.
    """

    lines: DatasetRef
    window_start: AwareDatetime
    window_end: AwareDatetime


class SignalMeasurement(Contract):
    """One figure of a window and whether it breaks its limit; ``violated`` is None where it was not judged, ``note`` why."""

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
    """How the window's requests differ from the rows that the champion learned from; ``terms`` is a table of new words."""

    readings: tuple[SignalMeasurement, ...]
    vectors: str = ""
    reference: DatasetRef | None = None
    terms: DatasetRef | None = None


class WindowCheck(Contract):
    """One window judged: what was measured, which signals were violated, and which of them are worth an alert."""

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
    """The windows of a model judged so far, oldest first; the store remembers it under ``monitoring/<model>``."""

    windows: tuple[WindowCheck, ...] = ()


class CheckOutcome(Contract):
    """What a check of production leaves behind; ``runs`` names the runs of ``retrain-on-alert`` by signal."""

    check: WindowCheck
    page: FileRef
    record: FileRef
    pairs: FileRef | None = None
    num_pairs: int = 0
    runs: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()
