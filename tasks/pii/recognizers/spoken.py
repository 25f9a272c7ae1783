"""What people spell out, as calls are written down: numbers digit by digit, names letter by letter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.reading import Reading
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_DIGIT_WORDS = ("zero", "oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGIT = rf"(?:(?:double|triple)[ -])?(?:{'|'.join(_DIGIT_WORDS)})"
_MIN_SPOKEN_DIGITS = 3
_SPOKEN_NUMBER = re.compile(rf"\b{_DIGIT}(?:[\s,.;-]{{1,3}}(?:and\s)?{_DIGIT}){{5,}}\b", re.IGNORECASE)
"""Six digits or more; people count to five."""
_ANNOUNCED_NUMBER = re.compile(
    r"\b(?:zip|post ?code|card|account|number|phone|pin|code|social|ssn|ending|ends?|starts?)\b"
    r"(?:\s(?:code|is|was|in|with|it's))*"
    rf"[\s,:]{{1,2}}(?P<value>{_DIGIT}(?:[\s,.;-]{{1,3}}{_DIGIT}){{{_MIN_SPOKEN_DIGITS - 1},}})\b",
    re.IGNORECASE,
)
_SPELLED_WORD = re.compile(r"(?<![\w-])(?:[^\W\d_]-){2,15}[^\W\d_](?![\w-])|(?<!\w)(?:[^\W\d_] ){3,15}[^\W\d_](?![\w-])")
_COUNTING = re.compile(r"one\W+two\W+three\W+four|nine\W+eight\W+seven\W+six", re.IGNORECASE)


class SpokenRecognizer(OwnRecognizer):
    """``two one nine, zero nine, ...`` and ``H-O-P-E``."""

    def __init__(self) -> None:
        super().__init__(("ID_NUMBER", "PERSON"))

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`."""
        if _may_hold_number(reading):
            for match in _SPOKEN_NUMBER.finditer(reading.text):
                if _COUNTING.match(match.group()) is None:
                    yield Span(match.start(), match.end(), "ID_NUMBER", 0.7, "own.spoken_number")
            for match in _ANNOUNCED_NUMBER.finditer(reading.text):
                yield Span(match.start("value"), match.end("value"), "ID_NUMBER", 0.6, "own.spoken_number")
        for match in _SPELLED_WORD.finditer(reading.text):
            word = match.group().replace("-", "").replace(" ", "").lower()
            if word in reading.lexicon.names or (len(word) > 3 and word not in reading.lexicon.ordinary):
                yield Span(match.start(), match.end(), "PERSON", 0.65, "own.spelled_name")


def _may_hold_number(reading: Reading) -> bool:
    """A necessary condition of both patterns, a tenth of their cost; letters beyond ASCII may match them in other cases."""
    return not reading.text.isascii() or sum(map(reading.lower.count, _DIGIT_WORDS)) >= _MIN_SPOKEN_DIGITS
