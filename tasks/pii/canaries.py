"""Made-up people, planted in varied sentences and scrubbed with every run, to measure what the detector misses."""

from __future__ import annotations

import random
from dataclasses import dataclass

_FIRST = ("Maria", "Tobias", "Aisha", "Kenji", "Olga", "Liam", "Priya", "Mateus", "Ingrid", "Chidi", "Sofia", "Pawel")
_LAST = (
    "Keller",
    "Okafor",
    "Nakamura",
    "Ivanova",
    "Murphy",
    "Sharma",
    "Pereira",
    "Lindqvist",
    "Rossi",
    "Kowalski",
    "Dubois",
)
_STREETS = ("Maple Avenue", "Station Road", "Birch Street", "Lindenstraße", "Church Lane", "Oak Drive")
_TEMPLATES = (
    ("PERSON", "Hi, my name is {value} and I need help with my order."),
    ("PERSON", "Please call {value} back about the invoice."),
    ("PERSON", "Dear {value},\nthank you for writing to us."),
    ("EMAIL_ADDRESS", "You can reach me at {value} any time."),
    ("PHONE_NUMBER", "My phone number is {value}, call me after six."),
    ("CREDIT_CARD", "I paid with card {value} yesterday."),
    ("IBAN_CODE", "Refund it to {value} please."),
    ("US_SSN", "My social security number is {value}."),
    ("IP_ADDRESS", "The login came from {value} at night."),
    ("STREET_ADDRESS", "Ship it to {value}, please."),
)


@dataclass(frozen=True)
class Canary:
    """One planted identity: a sentence, and the value in it that must not survive."""

    text: str
    value: str
    entity: str


def make_canaries(count: int, seed: int) -> list[Canary]:
    """``count`` canaries, the same for the same seed, every entity in turn."""
    source = random.Random(seed)
    canaries = []
    for number in range(count):
        entity, template = _TEMPLATES[number % len(_TEMPLATES)]
        value = _value(entity, source)
        canaries.append(Canary(template.format(value=value), value, entity))
    return canaries


def _value(entity: str, source: random.Random) -> str:
    first, last = source.choice(_FIRST), source.choice(_LAST)
    match entity:
        case "PERSON":
            return f"{first} {last}"
        case "EMAIL_ADDRESS":
            return f"{first}.{last}{source.randrange(100)}@example.org".lower()
        case "PHONE_NUMBER":
            return f"+1 {source.choice((212, 415, 646))}-555-{source.randrange(1000, 9999)}"
        case "CREDIT_CARD":
            return _with_luhn("4" + "".join(str(source.randrange(10)) for _ in range(14)))
        case "IBAN_CODE":
            return _with_iban_check("DE", "".join(str(source.randrange(10)) for _ in range(18)))
        case "US_SSN":
            return f"{source.randrange(100, 665)}-{source.randrange(10, 99)}-{source.randrange(1000, 9999)}"
        case "IP_ADDRESS":
            return ".".join(str(source.randrange(11, 250)) for _ in range(4))
        case _:
            return f"{source.randrange(1, 999)} {source.choice(_STREETS)}"


def _with_luhn(digits: str) -> str:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if position % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def _with_iban_check(country: str, account: str) -> str:
    letters = "".join(str(ord(letter) - 55) for letter in country)
    return f"{country}{98 - int(account + letters + '00') % 97:02d}{account}"
