"""Placeholders of scrubbing in a reply: what a customer must never read.

A model that learns from scrubbed replies learns to write ``Dear <PERSON>``. The reference has the same placeholder, so every
text metric would call that right. Surrogates are ordinary words, like the model's own.
"""

from __future__ import annotations

import re

PLACEHOLDER = r"<(?P<name>[A-Z][A-Z0-9_]{2,})(?::[0-9a-f]+)?>"
"""A name of capitals in brackets, as the scrubber writes it; also numbered, ``<PERSON_1>``, or hashed, ``<PERSON:1f>``."""


def has_placeholder(text: str, pattern: str = PLACEHOLDER) -> bool:
    """Whether a text holds a placeholder; a name that the same text also closes (``</TABLE>``) is markup.

    Args:
        text: A reply or a reference.
        pattern: A regular expression; its group ``name``, where it has one, is what markup would close.
    """
    for match in re.finditer(pattern, text):
        name = match.groupdict().get("name")
        if match.group() and (name is None or f"</{name}>" not in text):
            return True
    return False
