"""Facts that point to a person: age, dates of birth and of care, and, in strict mode, any full date."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tasks.pii.reading import Reading
from tasks.pii.recognizers.base import OwnRecognizer
from tasks.pii.spans import Span

_AGE = re.compile(
    r"\b(?P<a>\d{1,3})(?:\s?-?\s?(?:years?|yrs?)[\s-]?old|\s?(?:y/o|yo)\b|\syears? of age)"
    r"|\b(?:aged?|age is|age of|turn(?:ed|ing|s)?)(?:\s?[:=]|\sis)?\s(?P<b>\d{1,3})\b(?!\s?(?:%|percent|degrees|"
    r"dollars|euros|pages|times))"
    r"|\b(?:i am|i'm|im|he is|he's|she is|she's|who is|who's)\s(?:only\s|just\s|now\s|already\s)?(?P<c>\d{2,3})\b"
    r"(?=\s?(?:[.,;!?]|$|\n|and\b|years?\b|yrs?\b))",
    re.IGNORECASE,
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?"
    r"|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)"
)
_FULL_DATE = re.compile(
    r"(?<![\d./-])(?:(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:[12]\d|3[01]|0?[1-9])"
    r"|(?:[12]\d|3[01]|0?[1-9])[-./](?:[12]\d|3[01]|0?[1-9])[-./](?:(?:19|20)\d\d|\d\d))(?![\d/-]|\.\d)"
)
_WRITTEN_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?(?:\sof)?\s{{0,2}}{_MONTH}\.?,?(?:\s{{0,2}}(?:19|20)\d\d)?"
    rf"|{_MONTH}\.?\s{{0,2}}\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s{{0,2}}(?:19|20)\d\d)?)\b",
    re.IGNORECASE,
)
_LIFE_EVENT = re.compile(
    r"\b(?:born|birth(?:day|date)?|d\.?o\.?b|date of birth|deceased|died|death|admi(?:tted|ssion)|discharged?|"
    r"geburtsdatum)\b",
    re.IGNORECASE,
)
_EVENT_REACH = 40
"""Characters between a life event and its date."""


class PersonalFactRecognizer(OwnRecognizer):
    """Ages and dates.

    Args:
        strict: Also mask full numeric dates without a life event before them
            (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C)).
    """

    def __init__(self, *, strict: bool) -> None:
        super().__init__(("AGE", "DATE_OF_BIRTH", "DATE_TIME"))
        self._strict = strict

    def find(self, reading: Reading) -> Iterator[Span]:
        """See :class:`OwnRecognizer`; asks for a digit, since every fact has one."""
        text = reading.text
        for match in _AGE.finditer(text):
            group = match.lastgroup or "a"
            if 0 < int(match.group(group)) <= 125:
                yield Span(match.start(group), match.end(group), "AGE", 0.6, "own.age")
        events = [match.end() for match in _LIFE_EVENT.finditer(text)]
        for pattern, detector in ((_FULL_DATE, "own.date"), (_WRITTEN_DATE, "own.written_date")):
            if pattern is _WRITTEN_DATE and not events:
                continue
            for match in pattern.finditer(text):
                if any(0 <= match.start() - event <= _EVENT_REACH for event in events):
                    yield Span(match.start(), match.end(), "DATE_OF_BIRTH", 0.85, detector)
                elif self._strict and pattern is _FULL_DATE:
                    yield Span(match.start(), match.end(), "DATE_TIME", 0.6, detector)
