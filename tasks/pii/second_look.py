"""A second look at scrubbed text, which takes rows out that the detector left something in.

A rescan by the same detector finds almost nothing that its first pass missed. So rows are quarantined in which patterns of
high precision with their check digits match, or in which a value stands that the detector was sure of somewhere else. What
they catch is counted and proves nothing about the other rows; evidence about those is in :mod:`tasks.pii.verify`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from stdnum import luhn
from stdnum.iso7064 import mod_97_10

from tasks.pii.detect.tokens import JOINED, make_view
from tasks.pii.lexicon import lexicon

Check = Callable[[str], bool]


def _digits(value: str) -> str:
    return re.sub(r"\D", "", value)


def _has_iban_check(value: str) -> bool:
    plain = re.sub(r"[ -]", "", value).upper()
    return 15 <= len(plain) <= 34 and mod_97_10.is_valid(plain[4:] + plain[:4])


_PATTERNS: Mapping[str, tuple[re.Pattern[str], Check]] = {
    "EMAIL_ADDRESS": (
        re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.%+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){0,4}\.[A-Za-z]{2,24}"),
        lambda value: True,
    ),
    "US_SSN": (re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])"), lambda value: True),
    "CREDIT_CARD": (
        re.compile(r"(?<![\d.,-])(?:3[47]\d{2}[ -]?\d{6}[ -]?\d{5}|[3-6]\d{3}(?:[ -]?\d{4}){3})(?![\d-])"),
        lambda value: luhn.is_valid(_digits(value)),
    ),
    "IBAN_CODE": (
        re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{4}){2,7}(?:[ -]?[A-Z0-9]{1,3})?(?!\w)"),
        _has_iban_check,
    ),
    "IP_ADDRESS": (
        re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"),
        lambda value: len(_digits(value)) > 4,
    ),
    "PHONE_NUMBER": (
        re.compile(
            rf"(?<!{JOINED})(?<!\.)(?:\+\d{{1,3}}[ .-]?(?:\(?\d{{1,4}}\)?[ .-]?){{2,4}}\d{{2,4}}|"
            rf"\(?[2-9]\d{{2}}\)?[ .-][2-9]\d{{2}}[.-]\d{{4}})(?!{JOINED})"
        ),
        lambda value: 9 <= len(_digits(value)) <= 15,
    ),
}


def match_patterns(text: str, replacements: Sequence[tuple[int, int]]) -> list[tuple[int, int, str]]:
    """Start, end and name of each pattern's match that does not touch a replacement.

    Rows with a match are quarantined (:func:`tasks.pii.rows.scrub_rows`), so that none has one afterwards: the patterns
    measure how much the detector left, and nothing about the rows that were kept.
    """
    if not any(character in text for character in "@0123456789") and text.isascii():
        return []
    view = make_view(text)
    hits = []
    for name, (pattern, check) in _PATTERNS.items():
        for match in pattern.finditer(view.text):
            start, end = view.to_original(*match.span())
            if check(match.group()) and not any(first < end and start < last for first, last in replacements):
                hits.append((start, end, name))
    return hits


# -- values found elsewhere

_WORD = re.compile(r"[^\W_]+")
SURE_SCORE = 0.7
"""Values found with this score somewhere are looked for everywhere."""


def distinctive_value(entity: str, score: float, value: str) -> tuple[str, ...] | None:
    """The words of a value worth looking for everywhere, or None: too unsure, too short, or words that others use too.

    Names count with two parts or more, of which one is no ordinary word; codes and numbers from six letters and digits on.
    """
    if score < SURE_SCORE:
        return None
    words = tuple(word.lower() for word in _WORD.findall(value))
    if entity in ("PERSON", "KNOWN_VALUE") and not any(character.isdigit() for character in value):
        names = [word for word in words if len(word) > 1]
        return words if len(names) >= 2 and any(word not in lexicon().ordinary for word in names) else None
    if entity in ("AGE", "DATE_TIME", "DATE_OF_BIRTH", "LOCATION", "URL", "PROPER_NOUN", "POSTCODE", "NRP"):
        return None
    length = sum(map(len, words))
    has_digits = sum(character.isdigit() for character in value) >= 4
    return words if length >= 6 and (has_digits or "@" in value) else None


class ValueIndex:
    """Finds any of a set of values, as whole words in any case, in one pass over a text's words.

    Each value is known by its rarest word: 40,000 numbers share their country's code, and none its last digits.
    """

    def __init__(self, values: Iterable[tuple[str, ...]]) -> None:
        given = set(values)
        counts = Counter(word for words in given for word in words)
        self._by_rarest: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for words in sorted(given):
            place = min(range(len(words)), key=lambda index: (counts[words[index]], -len(words[index]), index))
            self._by_rarest.setdefault(words[place], []).append((place, words))

    def find(self, text: str, replacements: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """The first span that holds one of the values and touches no replacement, or None."""
        words = [(match.group().lower(), match.start(), match.end()) for match in _WORD.finditer(text)]
        for index, (word, _, _) in enumerate(words):
            for place, value in self._by_rarest.get(word, ()):
                first_word = index - place
                last = first_word + len(value) - 1
                fits = first_word >= 0 and last < len(words)
                if fits and all(words[first_word + step][0] == part for step, part in enumerate(value)):
                    start, end = words[first_word][1], words[last][2]
                    if not any(first < end and start < stop for first, stop in replacements):
                        return start, end
        return None
