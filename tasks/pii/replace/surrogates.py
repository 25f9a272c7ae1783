"""Made-up values in the place of real ones, in the scope of the whole corpus: the same real value always gets the same one.

A value's surrogate is an index, or the characters themselves, drawn from HMAC-SHA256 of the value under the run's key.
Nothing else goes in, so a person keeps one pseudonym across records, processes and quarters as long as the key is the
same, and without the key nobody can tell which name became which. Names are replaced part by part: "Anna Schmidt", "Anna"
and "Ms. Schmidt" stay recognisably one person.

Surrogates never reach anyone: e-mail at example.com (RFC 2606), phones in 555-01xx (NANP's fictional range), addresses of
the documentation networks (RFC 5737, RFC 3849), card numbers that fail Luhn, IBANs with check digits 00, social security
numbers of area 000.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

from stdnum import luhn

from tasks.pii.lexicon import lexicon, read_list, vocabulary

_PART = re.compile(r"[^\W_]*\d[^\W_]*|[^\W\d_]+")
"""A number, with letters or without, or a word: a name's span may reach over an address that it overlaps."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


Draw = Callable[[str, str], "Stream"]
"""Gives the numbers for a purpose and a value."""


class Stream:
    """Numbers drawn from a keyed hash of one value; the same key and value give the same numbers."""

    def __init__(self, key: bytes, purpose: str, value: str) -> None:
        folded = " ".join(value.casefold().split())
        self._seed = hmac.new(key, f"{purpose}\0{folded}".encode(), hashlib.sha256).digest()
        self._block = self._seed
        self._used = 0

    def below(self, limit: int) -> int:
        """The next number in ``[0, limit)``, for limits that are small against 2**32."""
        if self._used + 4 > len(self._block):
            self._block = hashlib.sha256(self._seed + self._block).digest()
            self._used = 0
        number = int.from_bytes(self._block[self._used : self._used + 4], "big")
        self._used += 4
        return number % limit


def surrogate(entity: str, value: str, key: bytes) -> str | None:
    """A made-up value of the same kind, the same in every record; None for an entity that has none."""
    return surrogate_from(entity, value, lambda purpose, given: Stream(key, purpose, given))


def surrogate_from(entity: str, value: str, draw: Draw) -> str | None:
    """A made-up value of the same kind from given numbers; None for an entity that has none (its placeholder stands in)."""
    make = _MAKERS.get(entity)
    return make(value, draw) if make is not None else None


def is_small(part: str) -> bool:
    """Whether a part of a name is a title or a particle."""
    return part.lower() in vocabulary("particles") | vocabulary("titles")


def _name(value: str, draw: Draw) -> str:
    parts = list(_PART.finditer(value))
    made: list[str] = []
    position = 0
    for place, match in enumerate(parts):
        # "von" and "Dr" stay where a name follows; alone or last ("Mr. King", "Di") they are the name.
        part = match.group()
        stays = is_small(part) and place < len(parts) - 1
        is_number = any(map(str.isdigit, part))
        made += (value[position : match.start()], part if stays else (_code if is_number else _name_part)(part, draw))
        position = match.end()
    return "".join([*made, value[position:]])


def _name_part(part: str, draw: Draw) -> str:
    """The pseudonym of one part; whether it is a given or a family name follows from the part alone, wherever it stands."""
    lower = part.lower()
    stream = draw("name", part)
    if len(part) == 1:
        made = _LETTERS[stream.below(26)]
        return made.upper() if part.isupper() else made
    names = read_list("surrogate_first_names.txt" if lower in lexicon().first else "surrogate_last_names.txt")
    made = names[stream.below(len(names))]
    while made.lower() == lower:
        made = names[stream.below(len(names))]
    return made.upper() if part.isupper() else made.lower() if part.islower() else made


def _email(value: str, draw: Draw) -> str:
    stream = draw("email", value)
    first, last = read_list("surrogate_first_names.txt"), read_list("surrogate_last_names.txt")
    return f"{first[stream.below(len(first))]}.{last[stream.below(len(last))]}{stream.below(10_000)}@example.com".lower()


def _phone(value: str, draw: Draw) -> str:
    stream = draw("phone", re.sub(r"\D", "", value))
    return f"{2 + stream.below(8)}{stream.below(10)}{stream.below(10)}-555-01{stream.below(100):02d}"


def _card(value: str, draw: Draw) -> str:
    made = _same_shape(value, draw, "card")
    places = [place for place, character in enumerate(made) if character.isdigit()]
    if places and luhn.is_valid("".join(made[place] for place in places)):
        last = places[-1]
        made = f"{made[:last]}{(int(made[last]) + 1) % 10}{made[last + 1 :]}"
    return made


def _iban(value: str, draw: Draw) -> str:
    made = _same_shape(value, draw, "iban")
    return f"{value[:2]}00{made[4:]}"


def _ssn(value: str, draw: Draw) -> str:
    stream = draw("ssn", re.sub(r"\D", "", value))
    return f"000-{1 + stream.below(99):02d}-{stream.below(10_000):04d}"


def _ip(value: str, draw: Draw) -> str:
    stream = draw("ip", value)
    if ":" in value:
        return f"2001:db8::{stream.below(65_536):x}:{stream.below(65_536):x}"
    return f"{('192.0.2', '198.51.100', '203.0.113')[stream.below(3)]}.{1 + stream.below(254)}"


def _address(value: str, draw: Draw) -> str:
    stream = draw("address", value)
    streets = read_list("surrogate_last_names.txt")
    number, name = 1 + stream.below(998), streets[stream.below(len(streets))]
    return f"{number} {name} {('Street', 'Avenue', 'Road', 'Lane')[stream.below(4)]}"


def _url(value: str, draw: Draw) -> str:
    stream = draw("url", value)
    return f"https://example.com/{stream.below(16**6):06x}"


def _username(value: str, draw: Draw) -> str:
    stream = draw("username", value.lstrip("@"))
    return f"{'@' if value.startswith('@') else ''}user{stream.below(10**6):06d}"


def _code(value: str, draw: Draw) -> str:
    return _same_shape(value, draw, "code")


def _same_shape(value: str, draw: Draw, purpose: str) -> str:
    """Every digit and letter replaced by another one, punctuation kept."""
    stream = draw(purpose, re.sub(r"[\W_]", "", value))
    made = []
    for character in value:
        if character.isdigit():
            made.append(str(stream.below(10)))
        elif character.isalpha():
            letter = _LETTERS[stream.below(26)]
            made.append(letter.upper() if character.isupper() else letter)
        else:
            made.append(character)
    return "".join(made)


_MAKERS: dict[str, Callable[[str, Draw], str]] = {
    "PERSON": _name,
    "PROPER_NOUN": _name,
    "KNOWN_VALUE": lambda value, draw: _code(value, draw) if any(map(str.isdigit, value)) else _name(value, draw),
    "EMAIL_ADDRESS": _email,
    "PHONE_NUMBER": _phone,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": _ssn,
    "US_ITIN": _ssn,
    "IP_ADDRESS": _ip,
    "STREET_ADDRESS": _address,
    "URL": _url,
    "USERNAME": _username,
    **dict.fromkeys(
        (
            "BANK_ACCOUNT",
            "DEVICE_ID",
            "ES_NIE",
            "ES_NIF",
            "HEALTH_PLAN_ID",
            "ID_NUMBER",
            "IN_PAN",
            "IT_FISCAL_CODE",
            "LICENSE_PLATE",
            "MAC_ADDRESS",
            "MEDICAL_LICENSE",
            "MEDICAL_RECORD_NUMBER",
            "POSTCODE",
            "TAX_ID",
            "US_DRIVER_LICENSE",
            "US_MBI",
            "US_PASSPORT",
            "VIN",
        ),
        _code,
    ),
}
