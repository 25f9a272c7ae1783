"""A limit on processor time for a piece of work that a made-up text can make endless.

It counts the processor's time of this process, not the clock's, so that load changes nothing, and interrupts the work where
it stands: Python's own regular expressions look for signals while they match. Signals reach the main thread only; in any
other thread there is no limit, so that work of this kind belongs into a process of its own.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class CpuLimitError(Exception):
    """The work took longer than its limit."""


def is_limitable() -> bool:
    """Whether :func:`cpu_limit` works here: in the main thread of a system that has interval timers."""
    return threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Ends the block after so many seconds of the processor.

    Raises:
        CpuLimitError: It took longer.
    """
    if not is_limitable():
        yield
        return

    def end(signal_number: int, frame: FrameType | None) -> None:
        raise CpuLimitError

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
