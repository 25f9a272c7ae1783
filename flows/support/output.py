"""A run outlives whoever reads its output: the worker that started it, the terminal, a pipe.

A worker gives its runs a pipe for their output. When the worker alone is killed the run is healthy, and the next line that
it writes is an error that would end it; rich even exits on its own. Log lines reach Prefect's page another way.
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

_begun = threading.Event()


class _Tolerant(io.FileIO):
    """A descriptor to which writing succeeds though nobody reads it."""

    def write(self, data: Any, /) -> int:
        """Writes, or lets the bytes go."""
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            return memoryview(data).nbytes


def outlive_readers() -> None:
    """Lets this process write to nowhere once nobody reads its standard output or error any more; once for all calls."""
    if _begun.is_set():
        return
    _begun.set()
    pipes = [number for number in (1, 2) if _is_pipe(number)]
    if not pipes:
        return
    sys.stdout, sys.stderr = _tolerant(sys.stdout, pipes), _tolerant(sys.stderr, pipes)
    Console.on_broken_pipe = _carry_on  # type: ignore[method-assign]
    # For what writes in another way, and for children.
    threading.Thread(target=_await_loss, args=(pipes,), name="output", daemon=True).start()


def _carry_on(self: Console) -> None:
    """In place of rich's exit."""


def _is_pipe(number: int) -> bool:
    with contextlib.suppress(OSError):
        mode = os.fstat(number).st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
    return False


def _tolerant(stream: TextIO, pipes: list[int]) -> TextIO:
    """The stream as it is, or one like it where it writes to a pipe."""
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


def _await_loss(pipes: list[int]) -> None:
    """Puts nowhere in the place of each pipe that has lost its reader, which the kernel tells at once and unasked."""
    poll = select.poll()
    for number in pipes:
        poll.register(number, 0)
    left = set(pipes)
    while left:
        for number, _ in poll.poll():
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, number)
            os.close(nowhere)
            poll.unregister(number)
            left.discard(number)
