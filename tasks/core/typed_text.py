"""What a person types for the record: names and reasons, checked before anything is done with them.

A text that a database cannot hold would break off a change of champion between two steps, and every later one with it:
PostgreSQL takes no NUL and MLflow's columns have ends. So it is refused where it comes in.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from tasks.core.errors import InputError

_REFUSED = "\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f-\\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffe\uffff"
PRINTABLE = f"^[^{_REFUSED}]*$"
"""A pattern for a setting or a form: no control characters but tabs and line ends, and nothing that turns a line around."""
_ODD = re.compile(f"[{_REFUSED}\ud800-\udfff]")

REASON_CHARACTERS = 1000
NAME_CHARACTERS = 100

Reason = Annotated[str, Field(min_length=1, max_length=REASON_CHARACTERS, pattern=PRINTABLE)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_CHARACTERS, pattern=PRINTABLE)]


def check_text(text: str, where: str, most: int = REASON_CHARACTERS, least: int = 1) -> str:
    """The text without space around it.

    Args:
        text: What was typed.
        where: What it is, in an error.
        most: So many characters at most.
        least: So many at least.

    Raises:
        InputError: It is too short or too long, or holds characters that cannot be kept. The text itself is not repeated.
    """
    text = text.strip()
    if found := _ODD.search(text):
        what = f"the control character U+{ord(found.group()):04X} at place {found.start() + 1}"
        raise InputError(where, what, "printable text", "Type it anew, without what was pasted along.")
    if not least <= len(text) <= most:
        raise InputError(where, f"{len(text)} characters", f"{least} to {most}", "Say it in so many.")
    return text


def cut(text: str, most: int = REASON_CHARACTERS) -> str:
    """A text for the record that no person typed, or that was let in earlier: odd characters replaced, cut to length."""
    text = _ODD.sub("\ufffd", text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
