"""A text as the recognizers see it: look-alike characters made plain, and its words with their places.

Everything keeps a way back to the original: the plain copy has the same length, or, where invisible characters had to be
dropped or escapes were undone, a table of places.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tasks.pii.lexicon import Lexicon, lexicon
from tasks.text.lower_case import lowered

JOINED = r"[\d_A-Za-z\u00aa-\u024f\u0370-\u052f]"
"""A character that makes one word with a number beside it. Scripts without spaces (Chinese, Japanese, Thai) and those
that glue on their endings write numbers right beside letters, so their letters are none."""

WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")
_CONTRACTED = ("'s", "'m", "'ll", "'re", "'ve", "'d")
_ODD = re.compile(r"[^\t\n\r\x20-\x7e\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]")
"""Anything but plain ASCII and accented Latin letters."""
_DIGIT = re.compile(r"\d")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PLAIN = {
    "‘": "'", "’": "'", "‛": "'", "′": "'", "ʼ": "'", "`": "'", "´": "'",
    "“": '"', "”": '"', "„": '"', "‟": '"', "«": '"', "»": '"',
    "‐": "-", "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "﹘": "-", "﹣": "-", "－": "-",
    "․": ".", "。": ".", "．": ".", "＠": "@", "﹫": "@",
}  # fmt: skip
_ESCAPE = re.compile(
    r"""
    \\(?:[nrt](?:(?![a-z])|(?<=[\s.,;!?)\]"'>]\\[nrt])|(?<=\\[nrt]\\[nrt]))  # of JSON; in a path, small letters follow
        |u[0-9A-Fa-f]{4})
    | &(?:\#[0-9]{1,6}|\#[xX][0-9A-Fa-f]{1,5}|[A-Za-z]{2,8});  # of HTML
    | <(?:(?<=\w<)|(?<=\d[.:-]<))/?(?:a|b|code|del|em|font|i|ins|mark|s|small|span|strong|sub|sup|tt|u|wbr)
        (?:\s[^<>\n]{0,80})?/?>(?=\w|(?<=\w>)[.:@-]\w|(?<=>)[.@]\w)  # mark-up within a word
    | %(?:40|2[BbDdEe]|3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa])  # of addresses: letters, digits, @, +, - and a dot
    | %20(?=%[0-9A-Fa-f]{2})  # another space stays
    | %[Cc][2-9A-Fa-f]%[89ABab][0-9A-Fa-f] | %[Dd][0-9A-Fa-f]%[89ABab][0-9A-Fa-f]
    | \[[.:@]\] | \([.:@]\)  # of addresses that nobody is to follow
    """,
    re.VERBOSE,
)
"""Each alternative begins with its sign, which lets the search skip all other characters."""
_SPELLED = re.compile(
    r"(?<![^\W_])(?<!\d[ .·_-])[A-ZÀ-ÖØ-Þ]"
    r"(?:(?:[ .·_-][a-zß-öø-ÿ]){2,20}|(?:[ .·_-][A-ZÀ-ÖØ-Þ]){3,20})(?![^\W_]|[ .·_-]\d)"
)
"""``A.n.n``, ``K a r i n``: letters with a sign between each two. Capitals alone need four: ``U.S.A.``, ``J. R. R.``"""
_LIKE_LATIN = str.maketrans(
    "АВЕКМНОРСТХІЈЅаеорсухіјѕᴀΑΒΕΖΗΙΚΜΝΟΡΤΥΧαογικνρυχ",
    "ABEKMHOPCTXIJSaeopcyxijsaABEZHIKMNOPTYXaoyiknpux",
)
_TWO_SCRIPTS = re.compile(r"(?=[^\W\d_]{0,40}[A-Za-z])(?=[^\W\d_]{0,40}[\u0370-\u03ff\u0400-\u04ff])[^\W\d_]{2,40}")
"""A word of Latin letters and others that look like them."""
_BRACKETED = re.compile(r"(?<=[<\[])[A-Z]+(?:_[A-Z]+)+(?=[>\]])")
"""``<MARIA_KELLER>``: two words."""
_SENTENCE_END = re.compile(r"[.!?:;\n•*|…\"(\[{]")


@dataclass(frozen=True)
class View:
    """The plain copy of a text, and where each of its characters starts and ends in the original (None: at its place)."""

    text: str
    places: tuple[tuple[int, int], ...] | None = None

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The original span of a span of the copy."""
        if self.places is None:
            return start, end
        return self.places[start][0], self.places[end - 1][1]


def make_view(text: str) -> View:
    """The plain copy: odd spaces, quotes, dashes and digits made plain, escapes undone, invisible characters dropped."""
    if _ODD.search(text) is None and _ESCAPE.search(text) is None and _SPELLED.search(text) is None:
        return View(_spaced(text))
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    for character, start, end in _characters(text):
        plain = _plain(character)
        if plain:
            characters.append(plain)
            places.append((start, end))
    same_length = len(characters) == len(text)
    plain = _TWO_SCRIPTS.sub(lambda match: match.group().translate(_LIKE_LATIN), "".join(characters))
    return View(_spaced(plain), None if same_length else tuple(places))


def _characters(text: str) -> Iterator[tuple[str, int, int]]:
    """Each character with its start and end; an escape is the character that it stands for."""
    dividers = {at for match in _SPELLED.finditer(text) for at in range(match.start() + 1, match.end(), 2)}
    position = 0
    for match in _ESCAPE.finditer(text):
        yield from ((text[at], at, at + 1) for at in range(position, match.start()) if at not in dividers)
        position = match.start()
        character = _unescaped(match.group())
        if len(character) <= 1:
            if character:
                yield character, match.start(), match.end()
            position = match.end()
    yield from ((text[at], at, at + 1) for at in range(position, len(text)) if at not in dividers)


def _unescaped(escape: str) -> str:
    """What an escape stands for: a character, or nothing where it is mark-up."""
    match escape[0]:
        case "<":
            return ""
        case "&":
            return html.unescape(escape)
        case "%":
            return bytes.fromhex(escape.replace("%", "")).decode()
        case "[" | "(":
            return escape[1]
    return chr(int(escape[2:], 16)) if escape[1] == "u" else "\n"


def _plain(character: str) -> str:
    """The character as the detectors read it; empty where it is invisible."""
    if character.isascii():
        return "" if _CONTROL.match(character) else character
    if character in _PLAIN:
        return _PLAIN[character]
    category = unicodedata.category(character)
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if category in ("Cf", "Cc", "Mn", "Me"):
        return ""
    if category == "Nd":
        return str(unicodedata.digit(character))
    folded = unicodedata.normalize("NFKC", character)
    return folded if len(folded) == 1 else character


def _spaced(text: str) -> str:
    return _BRACKETED.sub(lambda match: match.group().replace("_", " "), text) if "_" in text else text


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


class TokenizedText:
    """A plain text with its tokens; made once per text and shared by all of the project's own recognizers."""

    def __init__(self, text: str) -> None:
        self.plain = text
        self.lexicon: Lexicon = lexicon()

    @cached_property
    def tokens(self) -> list[Token]:
        """Words and numbers in order."""
        tokens = []
        position = 0
        plain = self.plain
        for match in WORD.finditer(plain):
            start = match.start()
            tokens.append(Token(start, match.group(), plain[position:start]))
            position = match.end()
        return tokens

    @cached_property
    def token_at(self) -> dict[int, int]:
        """The index of the token that starts at a place."""
        return {token.start: index for index, token in enumerate(self.tokens)}

    @cached_property
    def starts(self) -> list[int]:
        """Where each token starts, in order."""
        return [token.start for token in self.tokens]

    @cached_property
    def num_digits(self) -> int:
        """How many digits the text has."""
        return len(_DIGIT.findall(self.plain))

    @cached_property
    def lower(self) -> str:
        """The text in lower case, of the same length."""
        return lowered(self.plain)

    @cached_property
    def signs(self) -> str:
        """The letters and digits of the text in lower case, joined."""
        return "".join(filter(str.isalnum, self.lower))

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
