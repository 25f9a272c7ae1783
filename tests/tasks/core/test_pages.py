"""Markdown pages show what rows hold as it is."""

from __future__ import annotations

import pytest

from tasks.core.pages import markdown_text


@pytest.mark.parametrize("text", ["[x](https://evil.example)", "<img src=x>", "a|b", "**b**", "`c`", "# d", "~~e~~"])
def test_no_mark_keeps_its_meaning(text: str) -> None:
    shown = markdown_text(f"group {text}\nis small")
    assert "\n" not in shown
    assert all(shown[place - 1] == "\\" for place, mark in enumerate(shown) if mark in "`*_[]<>|#~")
    assert shown.replace("\\", "") == f"group {text} is small"
