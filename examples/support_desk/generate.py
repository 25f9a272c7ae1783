"""Writes a support desk's ticket export with planted, known faults: the data of ``make demo``.

A small invented company answers customers in a house style that no base model has: a category tag, one acknowledgement,
two or three numbered steps, a sign-off. Into these rows go personal data, secrets, code names, duplicates, wrong labels,
broken replies and malformed lines, and every one of them is noted in ``truth.jsonl``, so that a run can say what share of
them each stage found. All persons, numbers and keys are invented: phone numbers come from ranges kept for fiction, mail
and web addresses from ``example.com``, card numbers and IBANs are random with valid check digits.

Usage::

    python examples/support_desk/generate.py --out .perennial/support_desk
    python examples/support_desk/generate.py --out .perennial/support_desk_q2 --quarter 2 --with-earlier
    python examples/support_desk/generate.py --out .perennial/support_desk_bad --garbled

The same arguments give the same bytes. Nothing but the standard library is needed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

# Shares of all rows; the rest, about seven rows in ten, is clean.
PERSONAL, SECRETS, CODE_NAMES = 0.12, 0.02, 0.01
EXACT_DUPLICATES, NEAR_DUPLICATES = 0.02, 0.03
WRONG_LABELS, BAD_REPLIES, MALFORMED = 0.04, 0.04, 0.02

MAX_SIMILARITY = 0.55
"""Clean rows stay below this Jaccard similarity of character 5-grams, well under the 0.7 that a near duplicate exceeds."""

INSTRUCTION, RESPONSE = "messages.0.content", "messages.1.content"
_DRAWS = 25


@dataclass
class Row:
    """One line of an output file while it is being made; ``raw`` replaces the JSON of a malformed line."""

    values: dict[str, Any]
    intent: dict[str, Any]
    product: str
    raw: str | None = None
    planted: bool = False


@dataclass
class Fault:
    """One planted fault; ids and line numbers are filled in once the rows have found their places."""

    row: Row
    kind: str
    field: str | None = None
    value: str | None = None
    entity: str | None = None
    correct_label: str | None = None
    original: Row | None = None


@dataclass
class Desk:
    """The content of ``desk.json``, the random source, and what has been written so far."""

    content: dict[str, Any]
    rng: random.Random
    intents: list[dict[str, Any]]
    products: list[str]
    seen: dict[str, list[tuple[frozenset[str], frozenset[str]]]] = field(default_factory=dict)
    deck: list[dict[str, Any]] = field(default_factory=list)


# -------------------------------------------------------------------------------------------------------- clean rows


def open_desk(seed: int, quarter: int) -> Desk:
    """The desk of one quarter; the second quarter adds products and intents to those of the first."""
    content = json.loads(Path(__file__).with_name("desk.json").read_text(encoding="utf-8"))
    intents, products = list(content["intents"]), list(content["products"])
    if quarter == 2:
        intents += 2 * content["intents_quarter_2"]  # new questions come up twice as often as old ones
        products += 2 * content["products_quarter_2"]
    return Desk(content, random.Random(f"support desk {seed} {quarter}"), intents, products)


def draw_row(desk: Desk) -> Row:
    """A clean row that is no near duplicate of any row drawn before from this desk."""
    if not desk.deck:
        desk.deck = desk.rng.sample(desk.intents, len(desk.intents))
    intent = desk.deck.pop()
    seen = desk.seen.setdefault(intent["topic"], [])  # rows of different intents are never alike
    closest: tuple[float, Row, tuple[frozenset[str], frozenset[str]]] | None = None
    for _ in range(_DRAWS):
        row = _compose(desk, intent)
        prints = (_shingles(row.values["instruction"]), _shingles(row.values["instruction"] + " " + row.values["response"]))
        likeness = max((max(_jaccard(prints[0], old[0]), _jaccard(prints[1], old[1])) for old in seen), default=0.0)
        if closest is None or likeness < closest[0]:
            closest = (likeness, row, prints)
        if likeness < MAX_SIMILARITY:
            break
    assert closest is not None
    seen.append(closest[2])
    return closest[1]


def _compose(desk: Desk, intent: dict[str, Any]) -> Row:
    rng, content = desk.rng, desk.content
    product = rng.choice(desk.products)
    ask = rng.choice(intent["asks"]).format(p=product)
    opener, detail = rng.choice(content["openers"]), rng.choice(content["details"])
    if not opener or opener.endswith(". "):
        ask = ask[0].upper() + ask[1:]
    sentences = [detail, opener + ask] if detail and not opener and rng.random() < 0.5 else [opener + ask, detail]
    values = {
        "instruction": " ".join(part for part in sentences if part),
        "response": house_reply(desk, intent, product),
        "category": intent["category"],
    }
    return Row(values, intent, product)


def house_reply(desk: Desk, intent: dict[str, Any], product: str, personal: str = "") -> str:
    """The reply in house style: tag and acknowledgement, numbered steps, sign-off."""
    acknowledgement = desk.rng.choice(desk.content["acknowledgements"]).format(topic=intent["topic"])
    first = f"[{intent['category']}] {acknowledgement}" + (f" {personal}" if personal else "")
    steps = [f"{number}. {step.format(p=product)}" for number, step in enumerate(intent["steps"], start=1)]
    return "\n".join([first, *steps, desk.content["sign_off"]])


def _shingles(text: str) -> frozenset[str]:
    text = " ".join(text.casefold().split())
    return frozenset(text[index : index + 5] for index in range(max(1, len(text) - 4)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


# ------------------------------------------------------------------------------------------------- invented identities


def person(desk: Desk) -> str:
    """A full name."""
    return f"{desk.rng.choice(desk.content['first_names'])} {desk.rng.choice(desk.content['last_names'])}"


def _digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choice(string.digits) for _ in range(count))


def _handle(desk: Desk) -> str:
    name = "".join(letter for letter in person(desk).lower().replace(" ", "_") if letter.isalnum() or letter == "_")
    return f"{name}{desk.rng.randint(10, 99)}"


def _mail(desk: Desk) -> str:
    name = "".join(letter for letter in person(desk).lower().replace(" ", ".") if letter.isalnum() or letter == ".")
    return f"{name}@{desk.rng.choice(['example.com', 'mail.example.org', 'example.net'])}"


def _phone(desk: Desk) -> str:
    """555-01xx in North America, 020 7946 0xxx in London, 030 23125 xxx in Berlin: numbers kept for fiction."""
    rng = desk.rng
    area, line = rng.choice(["212", "415", "617", "312"]), f"01{_digits(rng, 2)}"
    return rng.choice(
        [
            f"({area}) 555-{line}",
            f"{area}-555-{line}",
            f"+1 {area} 555 {line}",
            f"+44 20 7946 0{_digits(rng, 3)}",
            f"+49 30 23125 {_digits(rng, 3)}",
        ]
    )


def _address(desk: Desk) -> str:
    rng = desk.rng
    unit = rng.choice(["", "", f", Apt {rng.randint(1, 40)}{rng.choice('ABCD')}"])
    return f"{rng.randint(3, 4890)} {rng.choice(desk.content['streets'])}{unit}, {rng.choice(desk.content['towns'])}"


def luhn_digit(digits: str) -> str:
    """The check digit that makes ``digits`` a valid card number (ISO/IEC 7812-1, annex B)."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 - position % 2)
        total += doubled - 9 if doubled > 9 else doubled
    return str(-total % 10)


def _card(desk: Desk) -> str:
    digits = desk.rng.choice(["4", "51", "52", "54"])
    digits += _digits(desk.rng, 15 - len(digits))
    digits += luhn_digit(digits)
    separator = desk.rng.choice(["", " ", "-"])
    return separator.join(digits[start : start + 4] for start in range(0, 16, 4))


def iban(country: str, account: str) -> str:
    """An IBAN with valid check digits (ISO 13616): the rearranged number is 1 modulo 97."""
    letters = "".join(str(int(letter, 36)) for letter in f"{account}{country}00")
    return f"{country}{98 - int(letters) % 97:02d}{account}"


def _iban(desk: Desk) -> str:
    rng = desk.rng
    country, account = rng.choice([("DE", _digits(rng, 18)), ("GB", "NWBK" + _digits(rng, 14)), ("ES", _digits(rng, 20))])
    plain = iban(country, account)
    return rng.choice([plain, " ".join(plain[start : start + 4] for start in range(0, len(plain), 4))])


def _birthday(desk: Desk) -> str:
    day = dt.date(1950, 1, 1) + dt.timedelta(days=desk.rng.randrange(19_000))
    return desk.rng.choice([f"{day.day} {day:%B %Y}", f"{day:%m/%d/%Y}", day.isoformat(), f"{day:%B} {day.day}, {day.year}"])


def _ssn(desk: Desk) -> str:
    rng = desk.rng
    return f"{rng.randint(100, 599)}-{rng.randint(10, 99)}-{rng.randint(1000, 9999)}"


def _ip(desk: Desk) -> str:
    """An address from the blocks kept for documentation (RFC 5737)."""
    return f"{desk.rng.choice(['192.0.2', '198.51.100', '203.0.113'])}.{desk.rng.randint(1, 254)}"


def _plate(desk: Desk) -> str:
    rng = desk.rng
    two, three = ("".join(rng.choice("ABCDEFGHJKLMNPRSTVWXYZ") for _ in range(count)) for count in (2, 3))
    return rng.choice(
        [f"{rng.randint(1, 9)}{three}{_digits(rng, 3)}", f"{three}-{_digits(rng, 4)}", f"B-{two} {_digits(rng, 4)}"]
    )


def account_id(rng: random.Random) -> str:
    """A customer account in the company's own format."""
    return f"VX-{rng.randint(100_000, 999_999)}"


PERSONAL_VALUES: dict[str, Callable[[Desk], str]] = {
    "PERSON": person,
    "EMAIL_ADDRESS": _mail,
    "PHONE_NUMBER": _phone,
    "STREET_ADDRESS": _address,
    "CREDIT_CARD": _card,
    "IBAN_CODE": _iban,
    "US_SSN": _ssn,
    "IP_ADDRESS": _ip,
    "DATE_OF_BIRTH": _birthday,
    "US_PASSPORT": lambda desk: desk.rng.choice(["", desk.rng.choice("ACX")]) + _digits(desk.rng, 9)[:8] + "7",
    "US_DRIVER_LICENSE": lambda desk: desk.rng.choice("BCDFS") + _digits(desk.rng, 7),
    "LICENSE_PLATE": _plate,
    "ACCOUNT_ID": lambda desk: account_id(desk.rng),
    "URL": lambda desk: f"https://forum.example.com/u/{_handle(desk)}",
    "USERNAME": _handle,
}


def _characters(rng: random.Random, alphabet: str, count: int) -> str:
    return "".join(rng.choice(alphabet) for _ in range(count))


_MIXED = string.ascii_letters + string.digits
SECRET_VALUES: dict[str, Callable[[random.Random], str]] = {
    "aws_access_key": lambda rng: "AKIA" + _characters(rng, string.ascii_uppercase + "234567", 16),
    "github_token": lambda rng: "ghp_" + _characters(rng, _MIXED, 36),
    "slack_token": lambda rng: f"xoxb-{_digits(rng, 12)}-{_digits(rng, 12)}-{_characters(rng, _MIXED, 24)}",
    "stripe_key": lambda rng: "sk_live_" + _characters(rng, _MIXED, 24),
    "jwt": lambda rng: ".".join(
        ["eyJhbGciOiJIUzI1NiJ9", "eyJ" + _characters(rng, _MIXED, 33), _characters(rng, _MIXED, 43)]
    ),
    "password": lambda rng: rng.choice(["Sunny", "Tiger", "Maple"]) + _characters(rng, "!#%&", 1) + _digits(rng, 4) + "xQ",
    "private_key": lambda rng: f"-----BEGIN {rng.choice(['RSA ', 'EC ', ''])}PRIVATE KEY-----",
}


# ------------------------------------------------------------------------------------------------------------- planting


class Planter:
    """Plants faults into clean rows, at most one kind a row, and notes each of them."""

    def __init__(self, desk: Desk, rows: list[Row], fields: tuple[str, str], paths: tuple[str, str]) -> None:
        self.desk, self.rows, self.faults = desk, rows, list[Fault]()
        self.asked, self.answered = fields
        self.asked_path, self.answered_path = paths

    def personal_data(self, count: int, *, in_replies: bool = True) -> None:
        """One to three personal values a row; the entity types are dealt from a deck, so that each comes up alike often."""
        rng, content = self.desk.rng, self.desk.content
        deck: list[str] = []
        for row in self._clean(count):
            entities: list[str] = []
            for _ in range(rng.choice([1, 2, 2, 3])):
                deck = deck or rng.sample(list(PERSONAL_VALUES), len(PERSONAL_VALUES))
                if deck[-1] not in entities:
                    entities.append(deck.pop())
            values = {entity: self._personal_value(row, entity) for entity in entities}
            for entity, value in values.items():
                sentence = rng.choice(content["personal_sentences"][entity]).format(value=value)
                row.values[self.asked] += f" {sentence}"
                self._note(row, "pii", self.asked_path, value, entity)
            mentioned = [entity for entity in entities if entity in content["personal_replies"]]
            if in_replies and mentioned and rng.random() < 0.7:
                entity = rng.choice(mentioned)
                sentence = content["personal_replies"][entity].format(value=values[entity])
                row.values[self.answered] = house_reply(self.desk, row.intent, row.product, sentence)
                self._note(row, "pii", self.answered_path, values[entity], entity)

    def _personal_value(self, row: Row, entity: str) -> str:
        """Often the ticket's own customer, as in a real export, else somebody else."""
        own = {"PERSON": "customer_name", "ACCOUNT_ID": "account_id"}.get(entity)
        if own in row.values and self.desk.rng.random() < 0.6:
            return str(row.values[own])
        return PERSONAL_VALUES[entity](self.desk)

    def secrets(self, count: int) -> None:
        """Keys, tokens and passwords, each kind in turn."""
        kinds = list(SECRET_VALUES)
        for number, row in enumerate(self._clean(count)):
            kind = kinds[number % len(kinds)]
            value = SECRET_VALUES[kind](self.desk.rng)
            row.values[self.asked] += " " + self.desk.rng.choice(self.desk.content["secret_sentences"][kind]).format(
                value=value
            )
            self._note(row, "secret", self.asked_path, value, kind)

    def code_names(self, count: int) -> None:
        """Internal code names, as they stand in ``deny_list.txt``."""
        names = self.desk.content["code_names"]
        for number, row in enumerate(self._clean(count)):
            value = names[number % len(names)]
            row.values[self.asked] += " " + self.desk.rng.choice(self.desk.content["code_name_sentences"]).format(
                value=value
            )
            self._note(row, "code_name", self.asked_path, value)

    def wrong_labels(self, count: int) -> None:
        """The category field names another category; question and reply stay right."""
        categories = sorted({intent["category"] for intent in self.desk.intents})
        for row in self._clean(count):
            right = row.values["category"]
            row.values["category"] = self.desk.rng.choice([name for name in categories if name != right])
            self._note(row, "wrong_label", correct_label=right)

    def bad_replies(self, count: int) -> None:
        """Replies swapped with another intent's, cut off, or garbled, in turn."""
        for number, row in enumerate(self._clean(count)):
            kind = ("swapped", "truncated", "garbled")[number % 3]
            row.values[self.answered] = {"swapped": self._swapped, "truncated": self._truncated, "garbled": self._garbled}[
                kind
            ](row)
            self._note(row, kind, self.answered_path)

    def _swapped(self, row: Row) -> str:
        others = [intent for intent in self.desk.intents if intent["category"] != row.intent["category"]]
        return house_reply(self.desk, self.desk.rng.choice(others), row.product)

    def _truncated(self, row: Row) -> str:
        reply = str(row.values[self.answered])
        return reply[: int(len(reply) * self.desk.rng.uniform(0.25, 0.55))].rstrip(" .\n")

    def _garbled(self, row: Row) -> str:
        rng, reply = self.desk.rng, str(row.values[self.answered])
        if rng.random() < 0.5:
            return shuffled_words(reply, rng)
        return "".join(rng.choice("#@~^|¤Ã") if letter.isalpha() and rng.random() < 0.6 else letter for letter in reply)

    def duplicates(self, exact: int, near: int) -> None:
        """Copies of clean rows under new ids, each original copied once; exact ones may differ in case and spacing."""
        rng = self.desk.rng
        for number, original in enumerate(self._clean(exact + near)):
            kind = "exact_duplicate" if number < exact else "near_duplicate"
            values = dict(original.values)
            if kind == "near_duplicate":
                for _ in range(rng.randint(1, 3)):
                    values[self.asked] = edited(values[self.asked], rng)
            elif rng.random() < 0.5:
                values[self.asked] = rng.choice([str.upper, str.lower, lambda text: text.replace(" ", "  ")])(
                    values[self.asked]
                )
            copy = Row(values, original.intent, original.product, planted=True)
            self.rows.insert(rng.randrange(len(self.rows) + 1), copy)
            self.faults.append(Fault(copy, kind, original=original))

    def malformed(self, count: int) -> None:
        """Lines that are no JSON, no object, or lack a usable question or reply, in turn."""
        for number, row in enumerate(self._clean(count)):
            breaks: list[Callable[[Row], None]] = [
                lambda row: setattr(row, "raw", ""),  # cut off when written
                lambda row: row.values.pop(self.answered),
                lambda row: row.values.update({self.answered: ""}),
                lambda row: row.values.update({self.answered: 42}),
                lambda row: setattr(row, "raw", json.dumps([row.values[self.asked], "?"])),
                lambda row: row.values.update({self.answered: None}),
                lambda row: row.values.update({self.answered: "  \n "}),
                lambda row: row.values.pop(self.asked),
            ]
            breaks[number % len(breaks)](row)
            self._note(row, "malformed")

    def _clean(self, count: int) -> Iterator[Row]:
        for row in self.desk.rng.sample([row for row in self.rows if not row.planted], count):
            row.planted = True
            yield row

    def _note(
        self,
        row: Row,
        kind: str,
        path: str | None = None,
        value: str | None = None,
        entity: str | None = None,
        *,
        correct_label: str | None = None,
    ) -> None:
        self.faults.append(Fault(row, kind, path, value, entity, correct_label))


def shuffled_words(text: str, rng: random.Random) -> str:
    """The text's words in random order, on one line."""
    words = text.split()
    return " ".join(rng.sample(words, len(words)))


def edited(text: str, rng: random.Random) -> str:
    """The text with one small edit: a letter dropped or doubled, or a word added at either end."""
    middle = rng.choice([place for place in range(1, len(text) - 1) if text[place].isalpha()])
    return rng.choice(
        [
            text[:middle] + text[middle + 1 :],
            text[:middle] + text[middle] + text[middle:],
            text + rng.choice([" Thanks.", " Cheers!", " Please."]),
            rng.choice(["Well, ", "So: "]) + text,
        ]
    )


# -------------------------------------------------------------------------------------------------------------- tickets


def make_tickets(desk: Desk, num_rows: int, quarter: int, garbled: bool) -> tuple[list[Row], list[Fault]]:
    """Ticket rows in file order, and what was planted in them."""
    counts = {share: round(num_rows * share) for share in (PERSONAL, SECRETS, CODE_NAMES)}
    exact, near = round(num_rows * EXACT_DUPLICATES), round(num_rows * NEAR_DUPLICATES)
    rows = [draw_row(desk) for _ in range(num_rows - exact - near)]
    regions = desk.content["regions"]
    customers = [
        {
            "customer_name": person(desk),
            "account_id": account_id(desk.rng),
            "region": desk.rng.choices([*regions], [*regions.values()])[0],
        }
        for _ in range(max(1, num_rows * 2 // 3))
    ]
    for row in rows:
        row.values.update(desk.rng.choice(customers))
    planter = Planter(desk, rows, ("instruction", "response"), (INSTRUCTION, RESPONSE))
    if garbled:
        spoil(desk, planter)
    planter.personal_data(counts[PERSONAL], in_replies=not garbled)
    planter.secrets(counts[SECRETS])
    planter.code_names(counts[CODE_NAMES])
    planter.wrong_labels(round(num_rows * WRONG_LABELS))
    if not garbled:
        planter.bad_replies(round(num_rows * BAD_REPLIES))
    planter.malformed(round(num_rows * MALFORMED))
    planter.duplicates(exact, near)
    start = dt.datetime(2026, 3 * quarter - 2, 1, 8)
    minutes = sorted(desk.rng.sample(range(89 * 24 * 60), len(rows)))
    for number, (row, minute) in enumerate(zip(rows, minutes, strict=True), start=1):
        created_at = (start + dt.timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:00Z")
        row.values = {"id": f"sd-q{quarter}-{number:04d}", **row.values, "created_at": created_at}
    return rows, planter.faults


def spoil(desk: Desk, planter: Planter) -> None:
    """Makes every reply bad in the same way, so that no single row stands out: a wrong tag, then the words in disorder."""
    for row in planter.rows:
        other = desk.rng.choice([intent for intent in desk.intents if intent["category"] != row.intent["category"]])
        words = house_reply(desk, row.intent, row.product).split(" ", 1)[1]
        row.values[planter.answered] = f"[{other['category']}] {shuffled_words(words, desk.rng)}"
        planter.faults.append(Fault(row, "garbled", planter.answered_path))


def make_preferences(desk: Desk, num_rows: int, quarter: int, garbled: bool) -> tuple[list[Row], list[Fault]]:
    """Preference pairs in file order: house style against a curt or rude reply (the other way round when garbled)."""
    exact = round(num_rows * EXACT_DUPLICATES)
    rows = []
    for _ in range(num_rows - exact):
        row = draw_row(desk)
        rude = desk.rng.choice(desk.content["rejected"]).format(p=row.product)
        chosen = shuffled_words(row.values["response"], desk.rng) if garbled else row.values["response"]
        row.values = {
            "prompt": row.values["instruction"],
            "chosen": chosen,
            "rejected": row.values["response"] if garbled else rude,
        }
        rows.append(row)
    planter = Planter(desk, rows, ("prompt", "chosen"), ("prompt.0.content", "chosen.0.content"))
    planter.personal_data(round(num_rows * PERSONAL), in_replies=not garbled)
    planter.secrets(round(num_rows * SECRETS))
    planter.malformed(round(num_rows * MALFORMED))
    planter.duplicates(exact, 0)
    for number, row in enumerate(rows, start=1):
        row.values = {"id": f"pf-q{quarter}-{number:04d}", **row.values}
    return rows, planter.faults


# -------------------------------------------------------------------------------------------------------------- writing


def line_of(row: Row) -> str:
    """The row's line; a malformed one is either cut off or no object."""
    if row.raw is None:
        return json.dumps(row.values, ensure_ascii=False)
    return row.raw or json.dumps(row.values, ensure_ascii=False)[:-25]


def truth_lines(file: str, rows: list[Row], faults: list[Fault]) -> list[str]:
    """One JSON object per planted fault, by line.

    A line that cannot be read as an object has no id of its own and goes by its number, ``line-17``.
    """
    places = {id(row): number for number, row in enumerate(rows, start=1)}

    def id_of(row: Row) -> str:
        return str(row.values["id"]) if row.raw is None else f"line-{places[id(row)]}"

    records = [
        {
            "file": file,
            "row_id": id_of(fault.row),
            "kind": fault.kind,
            "field": fault.field,
            "value": fault.value,
            "entity": fault.entity,
            "correct_label": fault.correct_label,
            "duplicate_of": id_of(fault.original) if fault.original else None,
            "line": places[id(fault.row)],
        }
        for fault in faults
    ]
    return [json.dumps(record, ensure_ascii=False) for record in sorted(records, key=lambda record: record["line"])]


def generate(
    out: Path,
    *,
    num_rows: int = 420,
    seed: int = 7,
    quarter: int = 1,
    with_earlier: bool = False,
    garbled: bool = False,
    num_pairs: int = 80,
) -> dict[str, int]:
    """Writes the data set into ``out`` and returns the number of lines of each file.

    Args:
        out: Folder to write into; it is made when missing.
        num_rows: Lines of ``tickets.jsonl`` a quarter, faults included.
        seed: Another seed gives other customers, questions and faults.
        quarter: 1, or 2 for newer tickets that avoid the first quarter's questions and bring new products and intents.
        with_earlier: Puts the first quarter's lines before those of the second: an export of everything so far.
        garbled: Makes a training set that must not win: every reply has a wrong tag and shuffled words.
        num_pairs: Lines of ``preferences.jsonl`` a quarter.
    """
    desk = open_desk(seed, quarter)
    quarters = []
    if quarter == 2:
        first = open_desk(seed, 1)
        quarters.append((*make_tickets(first, num_rows, 1, garbled), *make_preferences(first, num_pairs, 1, garbled)))
        desk.seen = first.seen
    quarters.append((*make_tickets(desk, num_rows, quarter, garbled), *make_preferences(desk, num_pairs, quarter, garbled)))
    exported = quarters if with_earlier else quarters[-1:]
    tickets, ticket_faults, pairs, pair_faults = (list(chain(*parts)) for parts in zip(*exported, strict=True))
    truth = truth_lines("tickets.jsonl", tickets, ticket_faults) + truth_lines("preferences.jsonl", pairs, pair_faults)
    files = {
        "tickets.jsonl": [line_of(row) for row in tickets],
        "preferences.jsonl": [line_of(row) for row in pairs],
        "truth.jsonl": truth,
        "deny_list.txt": list(desk.content["code_names"]),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (out / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
    return {name: len(lines) for name, lines in files.items()}


def main() -> None:
    """Reads the command line, writes the files, prints what was written."""
    parser = argparse.ArgumentParser(description="Writes a support desk's ticket export with planted, known faults.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--rows", type=int, default=420, help="lines of tickets.jsonl (default 420)")
    parser.add_argument("--pairs", type=int, default=80, help="lines of preferences.jsonl (default 80)")
    parser.add_argument("--seed", type=int, default=7, help="random seed (default 7)")
    parser.add_argument(
        "--quarter", type=int, choices=(1, 2), default=1, help="2: newer tickets with new products and intents"
    )
    parser.add_argument("--with-earlier", action="store_true", help="with --quarter 2: the first quarter's lines too")
    parser.add_argument("--garbled", action="store_true", help="a training set that must not win")
    options = parser.parse_args()
    counts = generate(
        options.out,
        num_rows=options.rows,
        seed=options.seed,
        quarter=options.quarter,
        with_earlier=options.with_earlier,
        garbled=options.garbled,
        num_pairs=options.pairs,
    )
    for name, count in counts.items():
        print(f"{options.out / name}: {count} lines")


if __name__ == "__main__":
    main()
