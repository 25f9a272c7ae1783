"""Keeps a run alive when the reader of its output is gone: the worker that started it, the terminal, a pipe.

A worker gives its runs a pipe for their output. If only the worker is killed, the next line that the healthy run writes
raises an error that would end it; rich even exits. Log lines reach Prefect's UI another way.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import stat
import sys
import threading
from typing import Any, TextIO

from rich.console import Console

_called = threading.Event()


class _Tolerant(io.FileIO):
    """A descriptor to which writing succeeds without a reader."""

    def write(self, data: Any, /) -> int:
        """Writes, or discards the bytes if there is no reader."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Discards standard output and error of this process once they have no reader; repeated calls do nothing."""
    if _called.is_set():
        return
    _called.set()
    pipes = [number for number in (1, 2) if _is_pipe(number)]
    if not pipes:
        return
    sys.stdout, sys.stderr = _tolerant(sys.stdout, pipes), _tolerant(sys.stderr, pipes)
    Console.on_broken_pipe = _ignore_broken_pipe  # type: ignore[method-assign]
    # For other writers, and for child processes.
    threading.Thread(target=_discard_unread, args=(pipes,), name="output", daemon=True).start()


def _ignore_broken_pipe(self: Console) -> None:
    """Replaces rich's exit."""


def _is_pipe(number: int) -> bool:
    with contextlib.suppress(OSError):
        mode = os.fstat(number).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return False


def _tolerant(stream: TextIO, pipes: list[int]) -> TextIO:
    """The stream itself, or a tolerant copy if it writes to a pipe."""
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # a stream in memory
        return stream
    if number not in pipes or not isinstance(stream, io.TextIOWrapper):
        return stream
    stream.flush()
    raw = io.BufferedWriter(_Tolerant(number, "w", closefd=False))
    return io.TextIOWrapper(
        raw, stream.encoding, stream.errors, line_buffering=stream.line_buffering, write_through=stream.write_through
    )


def _discard_unread(pipes: list[int]) -> None:
    """Replaces each pipe that loses its reader by the null device; ``poll`` reports the loss at once."""
    poll = select.poll()
    for number in pipes:
        poll.register(number, 0)
    left = set(pipes)
    while left:
        for number, _ in poll.poll():
            null_device = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null_device, number)
            os.close(null_device)
            poll.unregister(number)
            left.discard(number)
