"""Texts in lower case that a place in the original is a place in."""

from __future__ import annotations


def lowered(text: str) -> str:
    """The text in lower case, of the same length; a letter whose small form is two characters stays."""
    lower = text.lower()
    if len(lower) == len(text):
        return lower
    return "".join(low if len(low := character.lower()) == 1 else character for character in text)
