"""The made-up people of a record: one person in all writings, another in the next record, and never the real one."""

from __future__ import annotations

import re
from collections import Counter
from datetime import date

import pytest

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.replace.people import FEMALE, MALE, family_names, gender_of_name, given_names, identity
from tasks.pii.replace.record import RecordPeople
from tasks.pii.scrubbing import scrub_batch

LOCAL = Policy(PiiConfig(mode="turbo", operator="surrogate"))
NUMBERED = Policy(PiiConfig(mode="turbo", operator="numbered"))


def people(text: str = "<PERSON> writes", key: bytes | None = None) -> RecordPeople:
    return RecordPeople([text], key)


@pytest.mark.parametrize(
    ("full", "other"),
    [("Anna Müller", "MUELLER"), ("Sean O'Brien", "Mr. O’Brien"), ("Ana Peña", "Pena"), ("Jörg Weiß", "Joerg Weiss")],
)
def test_one_person_has_one_name_in_all_writings(full: str, other: str) -> None:
    record = people()
    made, again = record.surrogate("PERSON", full) or "", record.surrogate("PERSON", other) or ""
    assert identity(again.split()[-1]) == identity(made.split()[-1])
    assert identity(made.split()[0]) != identity(full.split(maxsplit=1)[0])
    assert record.placeholder("PERSON", full) == record.placeholder("PROPER_NOUN", other) == "<PERSON_1>"
    assert record.placeholder("PERSON", "Ivo Klein") == "<PERSON_2>"


def test_an_address_keeps_its_shape_and_follows_the_name() -> None:
    record = people()
    first, last = (record.surrogate("PERSON", "Anna Schmidt") or "").split()
    made = record.surrogate("EMAIL_ADDRESS", "anna.schmidt82@gmail.org") or ""
    assert re.fullmatch(rf"{first}\.{last}\d\d@example\.org", made, re.IGNORECASE)


@pytest.mark.parametrize("spelled", ["john dot smith at corp dot com", "jo [at] corp.example"])
def test_a_spelled_out_address_becomes_a_whole_one(spelled: str) -> None:
    made = people().surrogate("EMAIL_ADDRESS", spelled) or ""
    assert re.fullmatch(r"[a-z]+\.[a-z]+\d+@example\.com", made)


@pytest.mark.parametrize(
    ("language", "text", "name", "gender"),
    [
        ("de", "<PERSON> und ich bitte für das Paket", "Anna", FEMALE),
        ("fr", "je vous prie avec <PERSON> pour le colis", "Pierre", MALE),
        ("pl", "proszę o paczkę dla <PERSON> i nie do mnie", "Maria", FEMALE),
        ("tr", "<PERSON> için lütfen çok bir paket", "Mehmet", MALE),
    ],
)
def test_language_and_gender_are_kept(language: str, text: str, name: str, gender: str) -> None:
    assert gender_of_name(name) == gender
    made = (people(text).surrogate("PERSON", f"{name} Brandenberg") or "").split()
    assert made[0] in given_names(language, gender)
    assert made[1] in family_names(language)


def test_the_days_between_two_dates_are_kept() -> None:
    record = people()
    one, other = (record.surrogate("DATE_TIME", given) or "" for given in ("2024-03-01", "2024-03-31"))
    assert (date.fromisoformat(other) - date.fromisoformat(one)).days == 30
    assert one != "2024-03-01"
    assert re.fullmatch(r"\d{1,2}/\d{1,2}/19\d\d", record.surrogate("DATE_OF_BIRTH", "3/7/1980") or "")
    assert record.surrogate("DATE_TIME", "last Tuesday") is None


def test_what_a_value_becomes_says_nothing_about_it() -> None:
    """Two records that differ in their values alone get the same surrogates; other texts get others."""
    pairs = [("Ivo Okafor", "ivo@corp.example", "+1 415 555 2671"), ("Leo Brandt", "leo@corp.example", "+1 212 555 0000")]
    texts = [f"I am {name}, write to {mail} or call {phone}" for name, mail, phone in pairs]
    one, other = scrub_batch(texts, LOCAL).texts
    assert one is not None
    assert other is not None
    assert re.sub(r"[\w.]+@", "@", one) == re.sub(r"[\w.]+@", "@", other)
    many = [f"My name is Maria Keller and this is my order number {number}." for number in range(60)]
    names = Counter(re.findall(r"name is (\w+ \w+)", "\n".join(filter(None, scrub_batch(many, LOCAL).texts))))
    assert names.most_common(1)[0][1] < 12, "a name is not undone by its frequency"
    assert "Maria Keller" not in names


def test_no_key_is_needed_in_a_record_and_a_key_changes_its_people() -> None:
    drawn = {people(key=key).surrogate("PERSON", "Maria Keller") for key in (None, b"one", b"two", b"three")}
    assert len(drawn) > 1


def test_texts_of_a_record_share_its_people() -> None:
    texts = ["Dear Maria Keller, hello.", "Yours, Maria Keller"]
    together = scrub_batch(texts, LOCAL, records=[0, 0]).texts
    assert re.findall(r"Dear ([^,]+),", str(together[0])) == re.findall(r"Yours, (.+)", str(together[1]))
    assert scrub_batch(texts, NUMBERED, records=[0, 0]).texts == ["Dear <PERSON_1>, hello.", "Yours, <PERSON_1>"]
    both = scrub_batch(["jo@corp.example and al@corp.example, jo@corp.example"], NUMBERED).texts
    assert both == ["<EMAIL_ADDRESS_1> and <EMAIL_ADDRESS_2>, <EMAIL_ADDRESS_1>"]
    assert scrub_batch(both, NUMBERED).texts == both, "scrubbing twice equals scrubbing once"
