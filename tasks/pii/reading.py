"""A text as the detectors read it: look-alike characters made plain, and its words with their places.

Everything keeps a way back to the original: the plain copy has the same length, or, where invisible characters had to be
dropped, a table of offsets.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from tasks.pii.lexicon import Lexicon, lexicon

JOINED = r"[\d_A-Za-z\u00aa-\u024f\u0370-\u052f]"
"""A character that makes one word with a number beside it. Scripts without spaces (Chinese, Japanese, Thai) and those
that glue on their endings write numbers right beside letters, so their letters are none."""

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")
_CONTRACTED = ("'s", "'m", "'ll", "'re", "'ve", "'d")
_ODD = re.compile(r"[^\t\n\r\x20-\x7e\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")
"""Anything but plain ASCII and accented Latin letters."""
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PLAIN = {
    "‘": "'", "’": "'", "‛": "'", "′": "'", "ʼ": "'", "`": "'", "´": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "﹘": "-", "﹣": "-", "－": "-",
    "․": ".", "。": ".", "．": ".", "＠": "@", "﹫": "@",
}  # fmt: skip
_SENTENCE_END = re.compile(r"[.!?:;\n•*|…\"(\[{]")


@dataclass(frozen=True)
class View:
    """The plain copy of a text, and the original offset of each of its characters (None: the same)."""

    text: str
    offsets: tuple[int, ...] | None = None

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The original span of a span of the copy."""
        if self.offsets is None:
            return start, end
        return self.offsets[start], self.offsets[end - 1] + 1


def make_view(text: str) -> View:
    """The plain copy: odd spaces, quotes, dashes, digits and widths made plain; invisible characters dropped."""
    if _ODD.search(text) is None:
        return View(text)
    characters: list[str] = []
    offsets: list[int] = []
    for offset, character in enumerate(text):
        if character.isascii():
            if _CONTROL.match(character):
                continue
            plain = character
        elif character in _PLAIN:
            plain = _PLAIN[character]
        elif (category := unicodedata.category(character)) in ("Zs", "Zl", "Zp"):
            plain = " "
        elif category in ("Cf", "Cc", "Mn", "Me"):
            continue
        elif category == "Nd":
            plain = str(unicodedata.digit(character))
        else:
            folded = unicodedata.normalize("NFKC", character)
            plain = folded if len(folded) == 1 else character
        characters.append(plain)
        offsets.append(offset)
    same_length = len(characters) == len(text)
    return View("".join(characters), None if same_length else tuple(offsets))


class Token:
    """A word or number of the plain text; ``end`` leaves out a possessive ``'s``, ``lower`` too."""

    __slots__ = ("before", "end", "full_end", "is_capital", "is_number", "lower", "start", "text")

    def __init__(self, start: int, text: str, before: str) -> None:
        self.start = start
        self.full_end = start + len(text)
        lower = text.lower()
        if "'" in lower:
            for suffix in _CONTRACTED:
                if lower.endswith(suffix):
                    text = text[: -len(suffix)]
                    lower = lower[: -len(suffix)]
                    break
        self.text = text
        self.lower = lower
        self.end = start + len(text)
        self.before = before
        """What stands between the previous token and this one (from the start of the text for the first)."""
        head = text[0]
        self.is_capital = head.isupper()
        self.is_number = head.isdigit()


class Reading:
    """A plain text with its tokens; made once per text and shared by all own recognizers."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.lexicon: Lexicon = lexicon()

    @cached_property
    def tokens(self) -> list[Token]:
        """Words and numbers in order."""
        tokens = []
        position = 0
        text = self.text
        for match in _WORD.finditer(text):
            start = match.start()
            tokens.append(Token(start, match.group(), text[position:start]))
            position = match.end()
        return tokens

    @cached_property
    def lower(self) -> str:
        """The text in lower case, of the same length."""
        lowered = self.text.lower()
        if len(lowered) == len(self.text):
            return lowered
        return "".join(low if len(low := character.lower()) == 1 else character for character in self.text)

    @cached_property
    def has_case(self) -> bool:
        """Whether capitals mean something here: neither next to none nor next to all letters are capitals."""
        words = [token for token in self.tokens if not token.is_number and len(token.text) > 1]
        if not words:
            return False
        capitals = sum(token.is_capital for token in words)
        shouted = sum(token.text.isupper() for token in words)
        return capitals > 0 and (shouted < 0.7 * len(words) or len(words) < 3)

    @cached_property
    def is_english(self) -> bool:
        """Whether three words in five, and three at least, are English: else a word that is none says nothing."""
        words = [token.lower for token in self.tokens if token.lower.isalpha() and len(token.lower) > 1]
        num_english = sum(word in self.lexicon.english for word in words)
        return num_english >= max(3, 0.6 * len(words))

    def starts_sentence(self, index: int) -> bool:
        """Whether the token's capital may come from its place: first in the text, a line, a sentence or a quotation."""
        return index == 0 or _SENTENCE_END.search(self.tokens[index].before) is not None
