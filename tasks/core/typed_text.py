"""Validates names and reasons that a person types, before they are used.

A text that a database cannot store would interrupt a change of champion between two steps: PostgreSQL accepts no NUL, and
MLflow's columns have a limited length. So it is rejected at the input.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from tasks.core.errors import InputError

_REFUSED = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff"
PRINTABLE = f"^[^{_REFUSED}]*$"
"""A pattern for a setting or a form: no control characters but tabs and line ends, and no bidirectional controls."""
_ODD = re.compile(f"[{_REFUSED}\ud800-\udfff]")

REASON_CHARACTERS = 1000
NAME_CHARACTERS = 100

Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS, pattern=PRINTABLE)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=PRINTABLE)]


def check_text(text: str, where: str, most: int = REASON_CHARACTERS, least: int = 1) -> str:
    """The text without surrounding space.

    Args:
        text: The typed text.
        where: Its name in an error.
        most: Maximum number of characters.
        least: Minimum number of characters.

    Raises:
        InputError: It is too short or too long, or contains control characters. The error does not contain the text.
    """
    text = text.strip()
    if found := _ODD.search(text):
        character = f"the control character U+{ord(found.group()):04X} at place {found.start() + 1}"
        raise InputError(where, character, "printable text", "Remove the character.")
    if not least <= len(text) <= most:
        raise InputError(where, f"{len(text)} characters", f"{least} to {most}", "Change its length.")
    return text


def cut(text: str, most: int = REASON_CHARACTERS) -> str:
    """A text that was not typed, or not validated, made fit for the record: control characters replaced, cut to length."""
    text = _ODD.sub("\ufffd", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
