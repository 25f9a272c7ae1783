"""Facts that point to a person: age, dates of birth and of care, and, in strict mode, any full date."""

from __future__ import annotations

import re

from tasks.pii.detect.rules import Match, PatternRule, Rule
from tasks.pii.detect.tokens import TokenizedText
from tasks.pii.lexicon import vocabulary

_AGE = re.compile(
    r"\b(?P<a>\d{1,3})(?:\s?-?\s?(?:years?|yrs?)[\s-]?old|\s?(?:y/o|yo)\b|\syears? of age)"
    r"|\b(?:aged?|age is|age of|turn(?:ed|ing|s)?)(?:\s?[:=]|\sis)?\s(?P<b>\d{1,3})\b(?!\s?(?:%|percent|degrees|"
    r"dollars|euros|pages|times))"
    r"|\b(?:i am|i'm|im|he is|he's|she is|she's|who is|who's)\s(?:only\s|just\s|now\s|already\s)?(?P<c>\d{2,3})\b"
    r"(?=\s?(?:[.,;!?]|$|\n|and\b|years?\b|yrs?\b))",
    re.IGNORECASE,
)
_MONTH = rf"(?:{'|'.join(sorted(vocabulary('month_names'), key=lambda name: (-len(name), name)))})"
_NAMED_DATE = re.compile(rf"(?<![\w-])\d{{1,2}}[-./ ]{_MONTH}\.?[-./ ](?:(?:19|20)\d\d|\d\d)(?![\w-])", re.IGNORECASE)
_FULL_DATE = re.compile(
    r"(?<![\d./-])(?:(?:19|20)\d\d[-./](?:0?[1-9]|1[0-2])[-./](?:[12]\d|3[01]|0?[1-9])"
    r"|(?:[12]\d|3[01]|0?[1-9])[-./](?:[12]\d|3[01]|0?[1-9])[-./](?:(?:19|20)\d\d|\d\d))(?![\d/-]|\.\d)"
)
_WRITTEN_DATE = re.compile(
    rf"\b(?:\d{{1,2}}(?:st|nd|rd|th)?\.?(?:\s(?:of|de|del|di))?\s{{0,2}}{_MONTH}\.?,?(?:\s(?:de|del))?(?:\s{{0,2}}(?:19|20)\d\d)?"
    rf"|{_MONTH}\.?\s{{0,2}}\d{{1,2}}(?:st|nd|rd|th)?(?:,?\s{{0,2}}(?:19|20)\d\d)?)\b",
    re.IGNORECASE,
)
_LIFE_EVENT = re.compile(
    r"\b(?:born|birth(?:day|date)?|d\.?o\.?b|date of birth|deceased|died|death|admi(?:tted|ssion)|discharged?|"
    r"geburtsdatum|geboren|geb\.|naissance|née?|nat[oa] (?:il|a)|nascita|nacimiento|nacid[oa]|nascimento|nascid[oa]|nasceu|"
    r"geboortedatum|urodzon[ya]|ur\.|doğum)(?!\w)",
    re.IGNORECASE,
)
_LIFE_EVENT_KEYWORDS = (
    *("born", "birth", "dob", "d.o", "do.b", "deceased", "died", "death", "admi", "discharge", "geboren", "geburt", "geb."),
    *("né ", "née", "naissance", "nato ", "nata ", "nascit", "nacim", "nacid", "nascim", "nascid", "nasceu", "geboorte"),
    *("urodz", "ur.", "doğum"),
)


def _is_age(match: Match, text: TokenizedText) -> bool:
    return 0 < int(match.group(match.lastgroup or 0)) <= 125


PERSONAL_FACT_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.age",
        entity="AGE",
        score=0.6,
        pattern=_AGE,
        validator=_is_age,
        hits=("a «54» year old man", "she is «41», he was aged «7»"),
        misses=("aged 50 %", "it is 12 years now", "turned 200"),
    ),
    Rule(
        id="own.date_of_birth",
        entity="DATE_OF_BIRTH",
        score=0.85,
        pattern=_FULL_DATE,
        keywords=_LIFE_EVENT_KEYWORDS,
        context=_LIFE_EVENT,
        hits=("born «03/04/1985» in spring", "DOB: «1941-04-23»"),
        misses=("due 03/04/1985", "version 2024.03.15"),
    ),
    Rule(
        id="own.named_date",
        entity="DATE_OF_BIRTH",
        score=0.85,
        pattern=_NAMED_DATE,
        keywords=_LIFE_EVENT_KEYWORDS,
        context=_LIFE_EVENT,
        hits=("DOB: «23-Apr-1941»", "born «06.JUN.95».", "born «4 Mai 1957»"),
        misses=("due 23-Apr-2024",),
    ),
    Rule(
        id="own.written_date",
        entity="DATE_OF_BIRTH",
        score=0.85,
        pattern=_WRITTEN_DATE,
        keywords=_LIFE_EVENT_KEYWORDS,
        context=_LIFE_EVENT,
        hits=("he died on «3 June 1985».", "born «April 23rd, 1941»", "née le «12 août 1990»", "geboren am «4. März 1957»"),
        misses=("due on 3 June 1985",),
    ),
)
"""Facts that point to a person; for texts with a digit, since each has one."""

STRICT_FACT_RULES: tuple[PatternRule, ...] = (
    Rule(
        id="own.date",
        entity="DATE_TIME",
        score=0.6,
        pattern=_FULL_DATE,
        hits=("due «03/04/1985»", "on «2024-03-15»"),
        misses=("version 1.2.3", "10/20"),
    ),
)
"""Full numeric dates without a life event before them (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)(i)(C))."""
