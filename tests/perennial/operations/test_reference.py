"""The references of settings and commands say what the code says."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from perennial.cli.app import app
from perennial.operations.reference import render_reference

ROOT = Path(__file__).parents[3]


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written.rstrip() == render_reference().rstrip(), "run `make docs`"


def test_the_commands_are_up_to_date() -> None:
    command = typer.main.get_command(app)
    rendered = get_docs_for_click(obj=command, ctx=typer.Context(command), name="perennial", title="Commands")
    assert (ROOT / "docs" / "commands.md").read_text().rstrip() == rendered.rstrip(), "run `make docs`"


def test_every_setting_explains_itself() -> None:
    rows = [line for line in render_reference().splitlines() if line.startswith("| `")]
    silent = [row for row in rows if row.rstrip().endswith("|  |")]
    assert not silent, silent
