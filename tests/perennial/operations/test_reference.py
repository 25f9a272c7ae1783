"""The configuration reference says what the models say."""

from __future__ import annotations

from pathlib import Path

from perennial.operations.reference import render_reference

ROOT = Path(__file__).parents[3]


def test_the_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written.rstrip() == render_reference().rstrip(), "run `make docs`"


def test_every_setting_explains_itself() -> None:
    rows = [line for line in render_reference().splitlines() if line.startswith("| `")]
    silent = [row for row in rows if row.rstrip().endswith("|  |")]
    assert not silent, silent
