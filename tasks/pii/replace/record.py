"""The made-up people of one record: the same person is the same in every text of it, and another in the next record.

What a value becomes depends on its turn in the record and on the record's masked texts, never on the value itself: whoever
knows this code and guesses a name cannot check the guess. Kept are what a reader would miss: language and gender of a name,
the shape of an address, the days between two dates.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta

from tasks.pii.lexicon import lexicon, without_accents
from tasks.pii.replace.people import (
    STREETS,
    family_names,
    gender_of_name,
    given_names,
    identity,
    language_of_name,
    language_of_texts,
)
from tasks.pii.replace.surrogates import Stream, is_small, surrogate_from

_PART = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[^\W_]*\d[^\W_]*")
_PIECE = re.compile(r"[^\W\d_]+|\d+")
_PEOPLE = frozenset({"PERSON", "PROPER_NOUN", "KNOWN_VALUE"})
_DATES = frozenset({"DATE_OF_BIRTH", "DATE_TIME"})
_FORMATS = (
    "%Y-%m-%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d %B %Y", "%B %d, %Y", "%d %b %Y", "%d-%b-%Y",
    "%b %d, %Y", "%d. %B %Y", "%d.%m.%y", "%m/%d/%y",
)  # fmt: skip
_MAX_DAYS = 180


class RecordPeople:
    """Draws the surrogates and the numbers of one record.

    Args:
        masked: The record's texts with placeholders in place of values.
        key: The scrubber's key, if there is one.
    """

    def __init__(self, masked: Iterable[str], key: bytes | None) -> None:
        texts = "\0".join(masked)
        self._seed = hmac.new(key or b"", f"record\0{texts}".encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        self._language = language_of_texts(texts)
        self._turns: dict[tuple[str, str], int] = {}
        self._parts: dict[str, str] = {}
        self._people: list[set[str]] = []
        self._numbers: dict[str, int] = {}
        self._names: dict[str, str] = {}

    def stream(self, purpose: str, value: str) -> Stream:
        """Numbers for a value, by its turn among the values of its purpose."""
        turn = self._turns.setdefault((purpose, identity(value)), len(self._turns))
        return Stream(self._seed, purpose, str(turn))

    def surrogate(self, entity: str, value: str) -> str | None:
        """A made-up value of the same kind; None where there is none."""
        if entity in _PEOPLE and not (entity == "KNOWN_VALUE" and any(map(str.isdigit, value))):
            return self._name(value)
        if entity == "EMAIL_ADDRESS":
            return self._email(value)
        if entity in _DATES:
            return self._date(value)
        if entity == "STREET_ADDRESS":
            stream = self.stream("address", value)
            language = self._language or "en"
            names = family_names(language)
            return STREETS[language].format(number=1 + stream.below(198), name=names[stream.below(len(names))])
        made = surrogate_from(entity, value, self.stream)
        if made is not None and identity(made) == identity(value):  # as a short number may by chance
            made = surrogate_from(entity, value, lambda purpose, given: self.stream(f"other {purpose}", given))
        return None if made is not None and identity(made) == identity(value) else made

    def placeholder(self, entity: str, value: str) -> str:
        """A placeholder with a number: one for one value, and for one person under all forms of the name."""
        if entity not in _PEOPLE or any(map(str.isdigit, value)):
            return self._numbered(entity, f"{entity}\0{identity(value)}")
        own = {identity(part) for part in _PART.findall(value) if not is_small(part)} or {identity(value)}
        number = next((place for place, known in enumerate(self._people) if known & own), len(self._people))
        if number == len(self._people):
            self._people.append(set())
        self._people[number] |= own
        return self._numbered("PERSON", f"person\0{number}")

    def _numbered(self, entity: str, value: str) -> str:
        if value not in self._names:
            self._numbers[entity] = self._numbers.get(entity, 0) + 1
            self._names[value] = f"<{entity}_{self._numbers[entity]}>"
        return self._names[value]

    def _name(self, value: str) -> str:
        matches = list(_PART.finditer(value))
        made, last = [], 0
        for place, match in enumerate(matches):
            part = match.group()
            stays = is_small(part) and place < len(matches) - 1
            made += [value[last : match.start()], part if stays else self._part(part, is_last=0 < place == len(matches) - 1)]
            last = match.end()
        return "".join([*made, value[last:]])

    def _part(self, part: str, *, is_last: bool) -> str:
        known = identity(part)
        if known not in self._parts:
            self._parts[known] = self._drawn(part, known, is_last)
        made = self._parts[known]
        return made.upper() if part.isupper() else made.lower() if part.islower() else made

    def _drawn(self, part: str, known: str, is_last: bool) -> str:
        stream = self.stream("part", part)
        if any(map(str.isdigit, part)):
            return "".join(str(stream.below(10)) if sign.isdigit() else chr(97 + stream.below(26)) for sign in part)
        if len(part) == 1:
            same = next((made for own, made in self._parts.items() if len(own) > 1 and own.startswith(known)), None)
            return same[0] if same else chr(65 + stream.below(26))
        language = language_of_name(part, self._language)
        is_given = not is_last and part.casefold() in lexicon().first
        names = given_names(language, gender_of_name(part)) if is_given else family_names(language)
        taken = {identity(name) for name in self._parts.values()} | set(self._parts) | {known}
        free = [name for name in names if identity(name) not in taken] or [name for name in names if identity(name) != known]
        return free[stream.below(len(free))]

    def _email(self, value: str) -> str | None:
        local, _, domain = value.rpartition("@")
        if not any(map(str.isalnum, local)):  # spelled out: "jo at corp dot example"
            return surrogate_from("EMAIL_ADDRESS", value, self.stream)
        stream, made, last = self.stream("email", value), [], 0
        for match in _PIECE.finditer(local):
            piece = match.group()
            if piece.isdigit():
                new = "".join(str(stream.below(10)) for _ in piece)
            elif len(piece) == 1:
                new = chr(97 + stream.below(26))
            else:
                new = _plain(self._part(piece, is_last=False))
            made += [local[last : match.start()], new]
            last = match.end()
        ending = next((end for end in ("org", "net") if domain.casefold().endswith(end)), "com")
        return f"{''.join([*made, local[last:]])}@example.{ending}"

    def _date(self, value: str) -> str | None:
        stream = self.stream("days", "")
        days = (1 + stream.below(_MAX_DAYS)) * (1 if stream.below(2) else -1)
        for form in _FORMATS:
            try:
                found = datetime.strptime(value, form)
            except ValueError:
                continue
            if not date.min + timedelta(_MAX_DAYS) < found.date() < date.max - timedelta(_MAX_DAYS):
                return None
            moved = (found + timedelta(days)).strftime(form)
            return (
                moved if re.search(r"\b0\d", value) or not re.search(r"\b\d\b", value) else re.sub(r"\b0(\d)", r"\1", moved)
            )
        return None


def _plain(name: str) -> str:
    return "".join(sign for sign in without_accents(name.replace("ı", "i").replace("ł", "l")) if sign.isalnum()).lower()
