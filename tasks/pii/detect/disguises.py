"""Values in disguise: numbers divided by any sign or mark-up, misread by a scanner, encoded.

Each rule undoes one disguise and looks at what is under it: only what its check digits or its shape confirm counts, so that
rows of ordinary numbers stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from itertools import pairwise

from stdnum import iban, luhn

from tasks.pii.detect.rules import PatternRule, Rule
from tasks.pii.detect.tokens import TokenizedText

_DIVIDER = r"(?:[\s.,_·•|/*~:;=-]|<[^<>\n]{0,20}>)"
_DIVIDED = re.compile(rf"(?<![^\W_])\(?\+?\d{{1,19}}\)?(?:{_DIVIDER}{{1,4}}\(?\d{{1,19}}\)?){{1,24}}(?![^\W_])")
_DIVIDED_IBAN = re.compile(
    rf"(?<![^\W_])[A-Z]{{2}}{_DIVIDER}{{0,3}}\d{{1,2}}(?:{_DIVIDER}{{0,3}}[A-Z\d]{{1,8}}){{2,34}}", re.IGNORECASE
)
_MARKUP = re.compile(r"<[^<>\n]{0,20}>")
_SHAPES = {
    (3, 2, 4): "US_SSN",
    (3, 3, 4): "PHONE_NUMBER",
    (1, 3, 3, 4): "PHONE_NUMBER",
    (4, 4, 4, 4): "CREDIT_CARD",
    (4, 6, 5): "CREDIT_CARD",
}
"""Digits by group, for groups that one and the same sign divides."""
_MIN_SINGLE_DIGITS = 7
_MISREAD = re.compile(r"(?<!\w)(?=[\dOolIS|B .-]{8,24}(?!\w))[\dOolIS|B]{2,}(?:[ .-][\dOolIS|B]{2,}){0,4}(?!\w)")
_MIN_MISREAD_DIGITS = 6
_BASE64 = re.compile(r"(?<![\w+/=-])[A-Za-z\d+/_-]{12,}={0,2}(?![\w+/=-])")


def _divided(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    for match in _DIVIDED.finditer(text.plain):
        entity = _entity_of(match.group())
        if entity is not None:
            yield match.start(), match.end(), entity


def _entity_of(value: str) -> str | None:
    plain = _MARKUP.sub("\n", value)
    groups = re.findall(r"\d+", plain)
    sizes, digits = tuple(map(len, groups)), "".join(groups)
    dividers = {re.sub(r"[()]", "", divider) for divider in re.split(r"\d+", plain)[1:-1]}
    is_even = len(dividers) == 1
    if 13 <= len(digits) <= 19 and max(sizes) <= 6 and (len(groups) <= 5 or set(sizes) == {1}) and luhn.is_valid(digits):
        return "CREDIT_CARD" if set(digits) != {"0"} else None
    if set(sizes) == {1}:
        steps = {int(after) - int(before) for before, after in pairwise(digits)}
        is_mixed = len(steps) > 1 and len(set(digits)) > 2
        return "ID_NUMBER" if is_even and len(digits) >= _MIN_SINGLE_DIGITS and is_mixed else None
    if value.lstrip("(").startswith("+") and 9 <= len(digits) <= 15 and max(sizes) >= 3 and len(groups) <= 6:
        return "PHONE_NUMBER" if is_even else None
    return _SHAPES.get(sizes) if is_even else None


def _divided_ibans(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    for match in _DIVIDED_IBAN.finditer(text.plain):
        value = match.group()
        places = [place for place, sign in enumerate(value) if sign.isalnum()]
        signs = "".join(value[place] for place in places).upper()
        for size in range(min(len(signs), 34), 14, -1):
            if iban.is_valid(signs[:size]):
                yield match.start(), match.start() + places[size - 1] + 1, None
                break


def _misread(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    for match in _MISREAD.finditer(text.plain):
        value = match.group()
        num_digits = sum(map(str.isdigit, value))
        num_letters = sum(map(str.isalpha, value))
        if num_digits >= _MIN_MISREAD_DIGITS and 0 < num_letters <= num_digits // 2:
            yield match.start(), match.end(), None


def _encoded(text: TokenizedText) -> Iterator[tuple[int, int, str | None]]:
    for match in _BASE64.finditer(text.plain):
        value = match.group().rstrip("=").replace("-", "+").replace("_", "/")
        try:
            content = base64.b64decode(value + "=" * (-len(value) % 4), validate=True).decode("ascii")
        except (binascii.Error, UnicodeDecodeError):  # not base64, or of something that is no text
            continue
        if content.isprintable():
            yield match.start(), match.end(), None


def _may_be_divided(text: TokenizedText) -> bool:
    return text.num_digits >= _MIN_SINGLE_DIGITS


DISGUISE_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.divided_number",
        entity="ID_NUMBER",
        score=0.75,
        predicate=_divided,
        may_hold=_may_be_divided,
        hits=(
            "card «4111 - 1111 - 1111 - 1111» please",
            "call «415_555_2671» now",
            "call «+141 - 5555 - 2671» now",
            "it is «536 , 22 , 1234».",
            "it is «4111<b>1111</b>1111<i>1111».",
            "dial «4·1·5·5·5·5·2·6·7·1» now",
        ),
        misses=(
            "Sort 10, 25, 30, 45, 60, 75",
            "Add +10, 20, 30, 40 and 50",
            "Add 1 2 3 4 5 6 7 8 and 9",
            "0, 1, 0, 1, 0, 1, 0, 1",
            "from 10 to 2000, 350 and 1234",
        ),
    ),
    Rule(
        id="own.divided_iban",
        entity="IBAN_CODE",
        score=0.9,
        predicate=_divided_ibans,
        may_hold=_may_be_divided,
        hits=("to «DE89.3704.0044.0532.0130.00» now", "to «de89 3704_0044_0532_0130_00»."),
        misses=("to DE89.3704.0044.0532.0130.01 now",),
    ),
    Rule(
        id="own.misread_number",
        entity="ID_NUMBER",
        score=0.6,
        predicate=_misread,
        may_hold=lambda text: text.num_digits >= _MIN_MISREAD_DIGITS,
        hits=("TEL «0l823 496 O71» EXT", "REF «48O93S17» IN"),
        misses=("the BIOS is 12", "SOIL 100 and 2000"),
    ),
    Rule(
        id="own.base64",
        entity="ID_NUMBER",
        score=0.6,
        predicate=_encoded,
        hits=("token «am9obi5zbWl0aEBleGFtcGxlLmNvbQ==» sent",),
        misses=("internationalization and authentication", "sha 9f86d081884c7d659a2feaa0c55ad015"),
    ),
)
"""For every text; each has a cheap condition or a pattern that ordinary words do not begin."""
