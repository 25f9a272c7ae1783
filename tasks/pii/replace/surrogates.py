"""Made-up values in the place of real ones: the same real value always gets the same made-up one, with no table kept.

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


class _Stream:
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
    """A made-up value of the same kind, or None for an entity that has none (its placeholder stands in)."""
    make = _MAKERS.get(entity)
    return make(value, key) if make is not None else None


def _name(value: str, key: bytes) -> str:
    parts = list(_PART.finditer(value))
    made: list[str] = []
    position = 0
    for place, match in enumerate(parts):
        # "von" and "Dr" stay where a name follows; alone or last ("Mr. King", "Di") they are the name.
        part = match.group()
        is_small = part.lower() in vocabulary("particles") | vocabulary("titles")
        stays = is_small and place < len(parts) - 1
        is_number = any(map(str.isdigit, part))
        made += (value[position : match.start()], part if stays else (_code if is_number else _name_part)(part, key))
        position = match.end()
    return "".join([*made, value[position:]])


def _name_part(part: str, key: bytes) -> str:
    """The pseudonym of one part; whether it is a given or a family name follows from the part alone, wherever it stands."""
    lower = part.lower()
    stream = _Stream(key, "name", part)
    if len(part) == 1:
        made = _LETTERS[stream.below(26)]
        return made.upper() if part.isupper() else made
    names = read_list("surrogate_first_names.txt" if lower in lexicon().first else "surrogate_last_names.txt")
    made = names[stream.below(len(names))]
    while made.lower() == lower:
        made = names[stream.below(len(names))]
    return made.upper() if part.isupper() else made.lower() if part.islower() else made


def _email(value: str, key: bytes) -> str:
    stream = _Stream(key, "email", value)
    first, last = read_list("surrogate_first_names.txt"), read_list("surrogate_last_names.txt")
    return f"{first[stream.below(len(first))]}.{last[stream.below(len(last))]}{stream.below(10_000)}@example.com".lower()


def _phone(value: str, key: bytes) -> str:
    stream = _Stream(key, "phone", re.sub(r"\D", "", value))
    return f"{2 + stream.below(8)}{stream.below(10)}{stream.below(10)}-555-01{stream.below(100):02d}"


def _card(value: str, key: bytes) -> str:
    made = _same_shape(value, key, "card")
    places = [place for place, character in enumerate(made) if character.isdigit()]
    if places and luhn.is_valid("".join(made[place] for place in places)):
        last = places[-1]
        made = f"{made[:last]}{(int(made[last]) + 1) % 10}{made[last + 1 :]}"
    return made


def _iban(value: str, key: bytes) -> str:
    made = _same_shape(value, key, "iban")
    return f"{value[:2]}00{made[4:]}"


def _ssn(value: str, key: bytes) -> str:
    stream = _Stream(key, "ssn", re.sub(r"\D", "", value))
    return f"000-{1 + stream.below(99):02d}-{stream.below(10_000):04d}"


def _ip(value: str, key: bytes) -> str:
    stream = _Stream(key, "ip", value)
    if ":" in value:
        return f"2001:db8::{stream.below(65_536):x}:{stream.below(65_536):x}"
    return f"{('192.0.2', '198.51.100', '203.0.113')[stream.below(3)]}.{1 + stream.below(254)}"


def _address(value: str, key: bytes) -> str:
    stream = _Stream(key, "address", value)
    streets = read_list("surrogate_last_names.txt")
    number, name = 1 + stream.below(998), streets[stream.below(len(streets))]
    return f"{number} {name} {('Street', 'Avenue', 'Road', 'Lane')[stream.below(4)]}"


def _url(value: str, key: bytes) -> str:
    stream = _Stream(key, "url", value)
    return f"https://example.com/{stream.below(16**6):06x}"


def _username(value: str, key: bytes) -> str:
    stream = _Stream(key, "username", value.lstrip("@"))
    return f"{'@' if value.startswith('@') else ''}user{stream.below(10**6):06d}"


def _code(value: str, key: bytes) -> str:
    return _same_shape(value, key, "code")


def _same_shape(value: str, key: bytes, purpose: str) -> str:
    """Every digit and letter replaced by another one, punctuation kept."""
    stream = _Stream(key, purpose, re.sub(r"[\W_]", "", value))
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


_MAKERS: dict[str, Callable[[str, bytes], str]] = {
    "PERSON": _name,
    "PROPER_NOUN": _name,
    "KNOWN_VALUE": lambda value, key: _code(value, key) if any(map(str.isdigit, value)) else _name(value, key),
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
