"""The words of a text in any script, for metrics that compare word by word.

Chinese, Japanese, Thai, Lao, Khmer and Burmese put no space between words, so each of their letters, with the marks on it,
counts as a word. Unicode names these scripts by how a line breaks inside them (UAX 14: classes ID, CJ and SA). In all other
scripts a word is a run of letters, marks and digits: the vowel signs of Hindi and the points of Arabic and Hebrew are marks.
"""

from __future__ import annotations

import unicodedata

import regex

_UNSPACED = r"[\p{L}&&[\p{lb=SA}\p{lb=ID}\p{lb=CJ}]]"
_JOINERS = r"\u200c\u200d"  # they shape letters inside a word, as in Persian and Hindi
_WORDS = regex.compile(
    rf"{_UNSPACED}\p{{M}}*|[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{N}}\p{{M}}{_JOINERS}]--{_UNSPACED}]*", regex.V1
)
_UNSPACED_WORD = regex.compile(rf"({_UNSPACED}\p{{M}}*)", regex.V1)


def unicode_words(text: str) -> list[str]:
    """The words of a text in any script, in NFKC and case-folded."""
    words: list[str] = _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())
    return words


def with_spaces(text: str) -> str:
    """The text with a space on either side of every letter of a script that has none, for tokenizers that split there."""
    spaced: str = _UNSPACED_WORD.sub(r" \1 ", text)
    return spaced
