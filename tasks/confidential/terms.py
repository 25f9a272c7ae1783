"""Deny-listed terms found by one Aho-Corasick pass, whatever their case, width, spacing or hidden characters.

Both sides are folded alike: NFKC, lower case, invisible format characters dropped, every run of spaces, hyphens and
underscores one space. A map back to the original offsets keeps findings exact.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import ahocorasick

_JOINERS = re.compile(r"[\s\-_‐-―]+")
_PLAIN = re.compile(r"(?:[^\s\-_]|[ ](?![\s\-_]))*", re.ASCII)
"""ASCII text in which folding changes nothing but case, so that offsets stay as they are."""


@dataclass(frozen=True)
class Hit:
    """One confidential span of a text; ``pattern`` names what matched, never the value."""

    start: int
    end: int
    pattern: str


class TermMatcher:
    """Finds any of a list of terms as whole words; terms are named ``denied_term_1``, … in list order."""

    def __init__(self, terms: Iterable[str]) -> None:
        self._automaton = ahocorasick.Automaton()
        number = 0
        for number, term in enumerate(dict.fromkeys(fold(term)[0].strip() for term in terms), start=1):
            if term:
                self._automaton.add_word(term, (f"denied_term_{number}", len(term)))
        self.is_empty = len(self._automaton) == 0
        if not self.is_empty:
            self._automaton.make_automaton()

    def find(self, text: str) -> Iterator[Hit]:
        """Yields each whole-word occurrence, by end position; offsets are those of ``text``."""
        if self.is_empty:
            return
        folded, offsets = fold(text)
        for last, (name, length) in self._automaton.iter(folded):
            start, end = last - length + 1, last + 1
            if _is_bounded(folded, start, end):
                if offsets is None:
                    yield Hit(start, end, name)
                else:
                    yield Hit(offsets[start], offsets[last] + 1, name)


def fold(text: str) -> tuple[str, list[int] | None]:
    """The text as terms are compared, and for each of its characters the offset it came from (None: the same offset)."""
    if text.isascii() and _PLAIN.fullmatch(text):
        return text.lower(), None
    characters: list[str] = []
    offsets: list[int] = []
    for offset, character in _letters(text):
        if unicodedata.category(character[0]) == "Cf":
            continue
        folded = unicodedata.normalize("NFKC", character).lower()
        if _JOINERS.fullmatch(folded):
            if characters and characters[-1] == " ":
                continue
            folded = " "
        characters.extend(folded)
        offsets.extend([offset] * len(folded))
    return "".join(characters), offsets


def _letters(text: str) -> Iterator[tuple[int, str]]:
    """Each character with its offset and the marks on it: an accent may be stored as a character of its own."""
    start = 0
    for end in range(1, len(text) + 1):
        if end == len(text) or not unicodedata.combining(text[end]):
            yield start, text[start:end]
            start = end


def read_terms(text: str) -> tuple[str, ...]:
    """The terms of a deny-list file's text: one a line, comments and empty lines left out."""
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)


def _is_bounded(text: str, start: int, end: int) -> bool:
    before = text[start - 1] if start else " "
    after = text[end] if end < len(text) else " "
    return not (before.isalnum() and text[start].isalnum()) and not (after.isalnum() and text[end - 1].isalnum())
