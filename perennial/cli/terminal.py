"""Progress of a run in the terminal: one line per stage, with a bar and an ETA while it runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from flows.support.output import outlive_readers
from tasks.core.progress import Progress as StageState
from tasks.core.progress import listening

_SILENT_SECONDS = 30.0


class StageLines:
    """Draws the progress of stages: finished ones as printed lines, the active one as a live bar.

    Without a terminal (a log file, CI) a plain line every half minute takes the place of the bar.

    Args:
        console: The console to draw on.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self._open: dict[str, tuple[TaskID, float, StageState]] = {}

    def __call__(self, state: StageState, /) -> None:
        """Draws one state of one stage."""
        if state.finished:
            self._finish(state)
            return
        if state.stage in self._open:
            bar, started, _ = self._open[state.stage]
        else:
            bar, started = self._bars.add_task(state.stage, total=None, unit=state.unit, detail=""), time.monotonic()
        self._open[state.stage] = bar, started, state
        self._bars.update(bar, completed=state.done, total=state.total or None, detail=escape(state.detail))

    def _finish(self, state: StageState) -> None:
        seconds = " " * 8
        if state.stage in self._open:
            bar, started, _ = self._open.pop(state.stage)
            self._bars.remove_task(bar)
            seconds = f"{time.monotonic() - started:6.1f} s"
        if not state.detail:  # a stage without a summary, such as the note of a snapshot, is no line
            return
        self._console.print(f"[green]✓[/] {state.stage:<22} {seconds}  {escape(state.detail)}", highlight=False)

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Draws every stage that runs inside the block; a closed pipe (``| tee``) does not end the block."""
        outlive_readers()
        with listening(self):
            if self._console.is_terminal:
                with Live(self._bars, console=self._console, refresh_per_second=4, transient=True):
                    yield
            else:
                with self._heard_from():
                    yield

    def print_active(self) -> None:
        """Prints a line for each stage that runs: for how long, and how far it is."""
        for _, started, state in list(self._open.values()):
            counted = f"{state.done} of {state.total} {state.unit}" if state.total else ""
            place = ", ".join(filter(None, (counted, state.detail)))
            seconds = f"{time.monotonic() - started:6.0f} s"
            self._console.print(f"… {state.stage:<22} {seconds}    {place}".rstrip(), highlight=False, markup=False)

    @contextmanager
    def _heard_from(self) -> Iterator[None]:
        """Prints the active stages every half minute until the block ends."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_SILENT_SECONDS):
                self.print_active()

        watcher = threading.Thread(target=watch, name="stage-lines", daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
