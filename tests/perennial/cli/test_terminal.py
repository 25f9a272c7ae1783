"""Without a terminal, stages that take long say where they are."""

from __future__ import annotations

import io
import threading

import pytest
from rich.console import Console

from perennial.cli import terminal
from tasks.core.progress import report_progress


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_an_active_stage_is_one_plain_line_and_a_finished_one_is_none(console: Console) -> None:
    lines = terminal.StageLines(console)
    with lines.showing():
        with report_progress("train_sft", 120, "steps") as progress:
            progress(34, detail="loss [1.25]")
            lines.print_active()
            progress.finish("120 steps")
        lines.print_active()
    active, finished = printed(console)
    assert active.startswith("… train_sft")
    assert active.endswith("34 of 120 steps, loss [1.25]")
    assert finished.endswith("120 steps")


def test_a_stage_without_any_sign_is_named_again_and_again(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "_SILENT_SECONDS", 0.001)
    lines = terminal.StageLines(console)
    named, original = threading.Event(), lines.print_active

    def watched() -> None:
        original()
        if len(printed(console)) >= 2:
            named.set()

    monkeypatch.setattr(lines, "print_active", watched)
    with lines.showing(), report_progress("score_model", 0, "steps"):
        assert named.wait(60)
    assert all(line.startswith("… score_model") for line in printed(console))
    assert not any(thread.name == "stage-lines" for thread in threading.enumerate())
