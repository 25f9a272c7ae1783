"""Made-up people, planted in varied sentences and scrubbed with every run, to measure what the detector misses.

Half of the names are invented from syllables, so that no dictionary holds them; sentences come in ordinary, lower and upper
case. Every number is made to be valid (check digits), since real ones are.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from stdnum import iban, luhn

_FIRST = (
    "Maria Tobias Aisha Kenji Olga Liam Priya Mateus Ingrid Chidi Sofia Pawel Noor Mei Andrés Zoë Björn Fatima "
    "Kwame Élodie Mark Grace Rose Hunter Amber Jack Olive Ivy"
)
_LAST = (
    "Keller Okafor Nakamura Ivanova Murphy Sharma Pereira Lindqvist Rossi Kowalski Dubois Müller O'Brien Nguyen "
    "Haddad Castro Jensen Baker Young Price Stone Walsh"
)
_SYLLABLES = "ba bre da dri el fa ga hul i ja ko kri la lo ma mi na no or pe ra ri sa sel ta tho u va vi wen xa yo za zur"
_STREETS = (
    "Maple Avenue",
    "Station Road",
    "Birch Street",
    "Church Lane",
    "Oak Drive",
    "Kingfisher Close",
    "W 42nd Street",
    "Harbour View Terrace",
)
_FOREIGN_STREETS = ("Lindenstraße", "Rue de Rivoli", "Via Garibaldi", "Calle Mayor", "Prinsengracht", "Kungsgatan")
_CITIES = ("Springfield", "Leeds", "Graz", "Lyon", "Turku", "Porto", "Dayton", "Galway")
_TEMPLATES: tuple[tuple[str, str], ...] = (
    ("PERSON", "Hi, my name is {value} and I need help with my order."),
    ("PERSON", "Please call {value} back about the invoice."),
    ("PERSON", "Dear {value},\nthank you for writing to us."),
    ("PERSON", "The ticket was opened by {value} last week."),
    ("PERSON", "I already spoke with {value}, who promised a refund."),
    ("PERSON", "It was {value} who signed for the parcel."),
    ("PERSON", "Kind regards,\n{value}"),
    ("PERSON", "Can you add {value} to the account as a second user?"),
    ("PERSON", "Customer: {value}\nIssue: the lamp flickers"),
    ("PERSON", "my colleague {value} has the same problem"),
    ("EMAIL_ADDRESS", "You can reach me at {value} any time."),
    ("EMAIL_ADDRESS", "contact: {value}; please do not share it"),
    ("EMAIL_ADDRESS", "I no longer have access to {value}, change it please"),
    ("PHONE_NUMBER", "My phone number is {value}, call me after six."),
    ("PHONE_NUMBER", "Ring {value} when the courier is here"),
    ("PHONE_NUMBER", "The caller left {value} on the machine."),
    ("CREDIT_CARD", "I paid with card {value} yesterday."),
    ("CREDIT_CARD", "{value} was charged twice"),
    ("IBAN_CODE", "Refund it to {value} please."),
    ("US_SSN", "My social security number is {value}."),
    ("IP_ADDRESS", "The login came from {value} at night."),
    ("STREET_ADDRESS", "Ship it to {value}, please."),
    ("STREET_ADDRESS", "I have moved; the new address is {value}."),
    ("STREET_ADDRESS", "The parcel was left at {value} and nobody signed."),
    ("STREET_ADDRESS", "Deliver to:\n{value}\nThanks!"),
    ("DATE_OF_BIRTH", "My date of birth is {value}, is that on file?"),
    ("US_PASSPORT", "The form asks for my passport number, it is {value}."),
    ("US_DRIVER_LICENSE", "My driver's license number is {value}."),
    ("BANK_ACCOUNT", "Debit account number {value} from now on."),
    ("MEDICAL_RECORD_NUMBER", "The patient's MRN is {value}."),
    ("LICENSE_PLATE", "The van with the plate {value} blocked my drive."),
    ("USERNAME", "Follow me, I am @{value} there."),
)


@dataclass(frozen=True)
class Canary:
    """One planted identity: a sentence, and the value in it that must not survive."""

    text: str
    value: str
    entity: str


def make_canaries(count: int, seed: int) -> list[Canary]:
    """``count`` canaries, the same for the same seed; every template in turn, three in four in ordinary case."""
    source = random.Random(seed)
    canaries = []
    for number in range(count):
        entity, template = _TEMPLATES[number % len(_TEMPLATES)]
        value = _value(entity, source)
        text = template.format(value=value)
        case = source.randrange(8)
        if case == 0:
            text, value = text.lower(), value.lower()
        elif case == 1 and "ß" not in text:
            text, value = text.upper(), value.upper()
        canaries.append(Canary(text, value, entity))
    return canaries


def _value(entity: str, source: random.Random) -> str:
    match entity:
        case "PERSON":
            return _person(source)
        case "EMAIL_ADDRESS":
            domain = source.choice(("example.org", "mail.example.net", "example.co.uk"))
            name = f"{source.choice(_FIRST.split())}{source.choice(('.', '_', ''))}{_invented(source)}"
            return f"{name}{source.randrange(100)}@{domain}".lower()
        case "PHONE_NUMBER":
            return source.choice(
                (
                    f"+1 {source.choice((212, 415, 646))}-555-{source.randrange(1000, 9999)}",
                    f"({source.randrange(201, 989)}) 555-{source.randrange(1000, 9999)}",
                    f"+49 30 {source.randrange(1_000_000, 9_999_999)}",
                    f"0{source.randrange(100, 199)} 496 {source.randrange(1000, 9999)}",
                    "+33 6 " + " ".join(str(source.randrange(10, 99)) for _ in range(4)),
                )
            )
        case "CREDIT_CARD":
            digits = _with_luhn(source.choice(("4", "51", "55")), 16, source)
            return source.choice((digits, " ".join(digits[place : place + 4] for place in range(0, 16, 4))))
        case "IBAN_CODE":
            return _with_iban_check(source.choice(("DE", "AT", "NL")), _numerals(18, source))
        case "US_SSN":
            return f"{source.randrange(100, 665)}-{source.randrange(10, 99)}-{source.randrange(1000, 9999)}"
        case "IP_ADDRESS":
            return ".".join(str(source.randrange(11, 250)) for _ in range(4))
        case "STREET_ADDRESS":
            return _address(source)
        case "DATE_OF_BIRTH":
            day, month, year = source.randrange(1, 28), source.randrange(1, 12), source.randrange(1940, 2005)
            return source.choice((f"{year}-{month:02d}-{day:02d}", f"{day:02d}/{month:02d}/{year}", f"{day} June {year}"))
        case "LICENSE_PLATE":
            letters = "".join(source.choice("BCDFGHJKLMNPRSTVWXYZ") for _ in range(3))
            return f"{letters}{source.choice(('-', ' '))}{source.randrange(100, 9999)}"
        case "USERNAME":
            return f"{_invented(source)}{source.randrange(10, 99)}".lower()
        case "US_DRIVER_LICENSE":
            return f"{source.choice('ABCDEFGHKLMNPRSTW')}{_numerals(7, source)}"
        case _:
            return _numerals(9, source)


def _person(source: random.Random) -> str:
    first = source.choice(_FIRST.split()) if source.random() < 0.5 else _invented(source)
    last = source.choice(_LAST.split()) if source.random() < 0.5 else _invented(source)
    middle = f" {source.choice('ABCDEFGHJKLMNPRST')}." if source.random() < 0.1 else ""
    return f"{first}{middle} {last}"


def _invented(source: random.Random) -> str:
    return "".join(source.choice(_SYLLABLES.split()) for _ in range(source.choice((2, 3, 3)))).capitalize().ljust(4, "n")


def _address(source: random.Random) -> str:
    number = source.randrange(1, 1999)
    if source.random() < 0.3:
        street = f"{source.choice(_FOREIGN_STREETS)} {number % 200 + 1}"
    else:
        street = f"{number} {source.choice(_STREETS)}"
    unit = f", Apt. {source.randrange(1, 400)}" if source.random() < 0.2 else ""
    city = f", {source.choice(_CITIES)} {source.randrange(10_000, 99_999)}" if source.random() < 0.5 else ""
    return f"{street}{unit}{city}"


def _numerals(count: int, source: random.Random) -> str:
    return "".join(str(source.randrange(10)) for _ in range(count))


def _with_luhn(prefix: str, length: int, source: random.Random) -> str:
    digits = prefix + _numerals(length - len(prefix) - 1, source)
    return f"{digits}{luhn.calc_check_digit(digits)}"


def _with_iban_check(country: str, account: str) -> str:
    return f"{country}{iban.calc_check_digits(f'{country}00{account}')}{account}"
