"""Readers that take no part in scrubbing and look at its result: what they find was missed by everything before.

The scrubber's detector and the patterns that quarantine what it left (:mod:`tasks.pii.second_look`) cannot be counted as
evidence about the rows they let through: by construction they find nothing there. These readers share no code with either.
They take a text apart at its spaces, where neither looks, and know a network address by the standard library and a phone
number by Google's library of numbering plans.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import phonenumbers

from tasks.core.rows import Row, iter_strings

OutputSpans = Mapping[tuple[str, str], Sequence[tuple[int, int]]]
"""What the scrubber wrote, by row id and field."""

_AROUND = "<>()[]{}\"'`,;:!?.*_~|"
"""What stands around a value in a text and does not belong to it."""
_MIN_ADDRESS_CHARACTERS = 6
_MIN_PHONE_DIGITS = 9


@dataclass(frozen=True)
class Leak:
    """A value that stands open in scrubbed text: where, and what kind; never the value."""

    row_id: str
    field: str
    start: int
    end: int
    entity: str


def find_leaks(rows: Iterable[Row], outputs: OutputSpans, allowed: Collection[str] = ()) -> list[Leak]:
    """What the readers find in scrubbed rows, outside what the scrubber itself wrote.

    Args:
        rows: Scrubbed rows.
        outputs: What the scrubber wrote.
        allowed: Terms that may stand open; a value that contains one of them is none.
    """
    terms = [term.casefold() for term in allowed]
    leaks = []
    for row in rows:
        for field, text in iter_strings(row):
            replacements = outputs.get((row["id"], field), ())
            for start, end, entity in sorted(set(read_values(text))):
                is_replacement = any(first < end and start < last for first, last in replacements)
                value = text[start:end].casefold()
                if not is_replacement and not any(term in value for term in terms):
                    leaks.append(Leak(str(row["id"]), field, start, end, entity))
    return leaks


def read_values(text: str) -> Iterator[tuple[int, int, str]]:
    """Start, end and kind of each e-mail address, network address and international phone number in a text."""
    position = 0
    for part in text.split():
        position = text.index(part, position)
        bare = part.strip(_AROUND)
        start = position + part.index(bare) if bare else position
        position += len(part)
        if _is_email(bare):
            yield start, start + len(bare), "EMAIL_ADDRESS"
        elif _is_network_address(bare):
            yield start, start + len(bare), "IP_ADDRESS"
    if "+" in text:
        # Possible, not valid: numbering plans change, and made-up numbers are in none.
        for match in phonenumbers.PhoneNumberMatcher(text, None, leniency=phonenumbers.Leniency.POSSIBLE):
            if sum(map(str.isdigit, match.raw_string)) >= _MIN_PHONE_DIGITS:
                yield match.start, match.end, "PHONE_NUMBER"


def _is_email(part: str) -> bool:
    name, _, domain = part.rpartition("@")
    labels = domain.split(".")
    plain = all(label.replace("-", "").isalnum() for label in labels)
    return len(labels) > 1 and plain and labels[-1].isalpha() and any(map(str.isalnum, name))


def _is_network_address(part: str) -> bool:
    if len(part) < _MIN_ADDRESS_CHARACTERS or (part.count(".") != 3 and part.count(":") < 2):
        return False
    try:
        address = ipaddress.ip_address(part)
    except ValueError:  # the parser's way of saying that it is none
        return False
    return len({digit for digit in part if digit.isalnum()}) > 1 and not address.is_unspecified and not address.is_loopback
