"""A record's own structured values (a customer's name, an account), wherever they stand in its texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from tasks.pii.detect.tokens import TokenizedText, make_view
from tasks.pii.lexicon import lexicon, without_accents
from tasks.pii.spans import Span

_LETTERS = re.compile(r"[^\W\d_]+")
_NAME_MARKS = re.compile(r"[ ,.'’-]")
_MAX_NAME_WORDS = 12
"""A value of more words is a text: looked for as it stands, since its words are anybody's."""
_MAX_NUMBER_SIGNS = 64
_MIN_NUMBER_SIGNS, _MIN_NUMBER_DIGITS = 6, 4
"""Known values with so many letters and digits are found however they are divided; shorter ones would be found by chance."""


def find_known_values(text: TokenizedText, values: Sequence[str]) -> list[Span]:
    """Every occurrence of a record's own values, whole words, in any case, numbers however they are divided.

    A name's parts count too, in any order (``Baker, Rose``).
    """
    english = lexicon().english
    spans: list[Span] = []
    for value in values:
        plain = " ".join(make_view(value).text.split())
        if not plain:
            continue
        words = [token.lower for token in TokenizedText(plain).tokens]
        is_name = 1 < len(words) <= _MAX_NAME_WORDS and _NAME_MARKS.sub("", plain).isalpha()
        for expression in (*_writings(plain, text), *(_name_orders(words, text) if is_name else ())):
            matches = re.finditer(expression, text.plain, re.IGNORECASE)
            spans.extend(Span(match.start(), match.end(), "KNOWN_VALUE", 1.0, "known_values") for match in matches)
        if is_name:
            parts = {part for word in words for part in (word, *_LETTERS.findall(word)) if len(part) >= 3}
            bare = {without_accents(part) for part in parts}
            spans.extend(
                Span(token.start, token.end, "KNOWN_VALUE", 0.95, "known_values")
                for token in text.tokens
                if (token.lower in parts or without_accents(token.lower) in bare)
                and (token.is_capital or token.lower not in english)
            )
    return spans


def _writings(plain: str, text: TokenizedText) -> Iterator[str]:
    """Patterns of a known value that may match: as it is, and, where it is a number, with other separators or none."""
    parts = plain.split(" ")
    if _holds_all(text, parts):
        head = r"(?<!\w)" if plain[0].isalnum() else ""
        tail = r"(?!\w)" if plain[-1].isalnum() else ""
        yield head + r"\s+".join(map(re.escape, parts)) + tail
    signs = "".join(filter(str.isalnum, plain))
    is_number = _MIN_NUMBER_SIGNS <= len(signs) <= _MAX_NUMBER_SIGNS and sum(map(str.isdigit, signs)) >= _MIN_NUMBER_DIGITS
    if is_number and signs.lower() in text.signs:
        yield r"(?<!\w)" + r"[\s\-./()]{0,2}".join(map(re.escape, signs)) + r"(?!\w)"


def _name_orders(words: Sequence[str], text: TokenizedText) -> Iterator[str]:
    """Patterns of a name from each of its words on: the family name first or last, with a comma or without."""
    if _holds_all(text, words):
        for first in range(len(words)):
            turned = [*words[first:], *words[:first]]
            yield r"(?<!\w)" + r"[\s,.]+".join(map(re.escape, turned)) + r"(?!\w)"


def _holds_all(text: TokenizedText, parts: Iterable[str]) -> bool:
    """Whether a text holds all parts somewhere: quicker than to make a pattern and look."""
    return all(part.lower() in text.lower or part in text.plain for part in parts)
