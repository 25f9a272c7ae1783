"""What people spell out, as calls are written down: numbers digit by digit, names letter by letter."""

from __future__ import annotations

import re

from tasks.pii.detect.rules import Match, PatternRule, Rule
from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.lexicon import vocabulary

_DIGIT_WORDS = tuple(sorted(vocabulary("spoken_digits"), key=lambda word: (-len(word), word)))
_DIGIT = rf"(?:(?:double|triple|dubbel|doppel)[ -])?(?:{'|'.join(_DIGIT_WORDS)})\b"
_MIN_SPOKEN_DIGITS, _MIN_CODE_DIGITS = 3, 2
_SPOKEN_NUMBER = re.compile(rf"\b{_DIGIT}(?:[\s,.;-]{{1,3}}(?:(?:and|et)\s)?{_DIGIT}){{5,}}", re.IGNORECASE)
"""Six digits or more; people count to five."""
_ANNOUNCED_NUMBER = re.compile(
    r"\b(?:zip|post ?code|card|account|number|phone|pin|code|social|ssn|ending|ends?|starts?)\b"
    r"(?:\s(?:code|is|was|in|with|it's))*"
    rf"[\s,:]{{1,2}}(?P<value>{_DIGIT}(?:[\s,.;-]{{1,3}}{_DIGIT}){{{_MIN_SPOKEN_DIGITS - 1},}})\b",
    re.IGNORECASE,
)
_SPOKEN_CODE = re.compile(rf"\b(?:(?:[a-z]|{_DIGIT})[ ,-]{{1,2}}){{4,}}(?:[a-z]|{_DIGIT})\b", re.IGNORECASE)
"""``b v six eight k l o``."""
_SPELLED_WORD = re.compile(r"(?<![\w-])(?:[^\W\d_]-){2,15}[^\W\d_](?![\w-])|(?<!\w)(?:[^\W\d_] ){3,15}[^\W\d_](?![\w-])")
_ANY_DIGIT = re.compile(rf"\b(?:{'|'.join(_DIGIT_WORDS)})\b")
_COUNTING = re.compile(r"one\W+two\W+three\W+four|nine\W+eight\W+seven\W+six", re.IGNORECASE)


def _may_hold_number(text: TokenizedText) -> bool:
    """A necessary condition of both patterns, a tenth of their cost; letters beyond ASCII may match them in other cases."""
    return not text.plain.isascii() or len(_ANY_DIGIT.findall(text.lower)) >= _MIN_CODE_DIGITS


def _is_spelled_name(match: Match, text: TokenizedText) -> bool:
    word = match.group().replace("-", "").replace(" ", "").lower()
    return word in text.lexicon.names or (len(word) > 3 and word not in text.lexicon.ordinary)


SPOKEN_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.spoken_number",
        entity="ID_NUMBER",
        score=0.7,
        pattern=_SPOKEN_NUMBER,
        may_hold=_may_hold_number,
        validator=lambda match, text: _COUNTING.match(match.group()) is None,
        hits=(
            "my social is «two one nine, zero nine, double nine nine nine»",
            "ring «oh seven seven double oh nine hundred one four» now",
            "c'est le «zéro six cinquante-cinq cinquante zéro un»",
        ),
        misses=("Count one, two, three, four, five, six.", "one or two of three"),
    ),
    Rule(
        id="own.spoken_code",
        entity="ID_NUMBER",
        score=0.6,
        pattern=_SPOKEN_CODE,
        may_hold=_may_hold_number,
        validator=lambda match, text: (
            len(re.findall(rf"\b{_DIGIT}", match.group(), re.IGNORECASE)) >= _MIN_CODE_DIGITS
            and _COUNTING.match(match.group()) is None
        ),
        hits=("my plate is «b v six eight k l o» thanks",),
        misses=("a b c d e f", "plan a or b, one or two"),
    ),
    Rule(
        id="own.announced_number",
        entity="ID_NUMBER",
        score=0.6,
        pattern=_ANNOUNCED_NUMBER,
        may_hold=_may_hold_number,
        hits=("my card starts with «four one one one»",),
        misses=("the phone has one or two flaws",),
    ),
    Rule(
        id="own.spelled_name",
        entity="PERSON",
        score=0.65,
        pattern=_SPELLED_WORD,
        validator=_is_spelled_name,
        hits=("It's Hope, «H-O-P-E».",),
        misses=("It is made in the U-S-A.",),
    ),
)
"""``two one nine, zero nine, ...`` and ``H-O-P-E``."""
