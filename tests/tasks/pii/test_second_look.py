"""The second look finds what is left and keeps its hands off what the scrubber wrote."""

from __future__ import annotations

import pytest

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy
from tasks.pii.rows import find_common_terms, quarantine_known_values, scrub_rows
from tasks.pii.second_look import (
    ValueIndex,
    distinctive_value,
    match_patterns,
)


def row(name: str, text: str, reply: str = "Done.") -> dict[str, object]:
    return {"id": name, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": reply}]}


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("write to jo@corp.example", "EMAIL_ADDRESS"),
        ("it is 219-09-9999 there", "US_SSN"),
        ("4111 1111 1111 1111", "CREDIT_CARD"),
        ("DE89 3704 0044 0532 0130 00", "IBAN_CODE"),
        ("from 192.168.10.44", "IP_ADDRESS"),
        ("ring +44 7700 900123", "PHONE_NUMBER"),
        ("jo\u200b@corp.exa\u200bmple", "EMAIL_ADDRESS"),
    ],
)
def test_patterns_find_what_stands_open(text: str, pattern: str) -> None:
    ((start, end, name),) = match_patterns(text, ())
    assert name == pattern
    assert match_patterns(text, [(start, end)]) == []


@pytest.mark.parametrize("text", ["order 4111 1111 1111 1112", "version 1.2.3", "12/05/2024", "no mail here @ all"])
def test_patterns_check_digits(text: str) -> None:
    assert match_patterns(text, ()) == []


def test_a_value_found_in_one_row_is_looked_for_in_all(turbo: Policy) -> None:
    rows = [row("a", "my name is Tarjanne Wexelblatt"), row("b", "tarjanne wexelblatt left"), row("c", "all is well")]
    result = scrub_rows(rows, turbo)
    quarantine_known_values(result, {str(each["id"]): each for each in rows})
    assert [each["id"] for each in result.kept] == ["a", "c"]
    assert [(each["id"], each["reason"]) for each in result.quarantined] == [("b", "verifier_hit:known_elsewhere")]


def test_only_distinctive_values_are_looked_for() -> None:
    assert distinctive_value("PERSON", 0.9, "Tarjanne Wexelblatt") == ("tarjanne", "wexelblatt")
    assert distinctive_value("PERSON", 0.9, "Tarjanne") is None
    assert distinctive_value("PERSON", 0.5, "Tarjanne Wexelblatt") is None
    assert distinctive_value("PERSON", 0.9, "Will May") is None
    assert distinctive_value("ID_NUMBER", 0.75, "VX-704937") == ("vx", "704937")
    assert ValueIndex([("vx", "704937")]).find("see vx 704937.", ()) == (4, 13)
    assert ValueIndex([("vx", "704937")]).find("see vx 7049371.", ()) is None


def test_frequent_unknown_words_name_products_and_names_never_do() -> None:
    rows = [row(str(number), f"The Zorbatron of Siobhan is {number}") for number in range(40)]
    assert find_common_terms(rows, 0.02) == {"zorbatron"}
    assert find_common_terms(rows[:10], 0.02) == frozenset()
    assert find_common_terms(rows, 0) == frozenset()
    policy = Policy(PiiConfig(mode="turbo"), common_terms=frozenset({"zorbatron"}))
    kept = scrub_rows([row("a", "The Zorbatron of Siobhan."), row("b", "My name is Zorbatron.")], policy).kept
    assert [each["messages"][0]["content"] for each in kept] == ["The Zorbatron of <PERSON>.", "My name is <PERSON>."]


def test_values_with_a_common_first_word_are_told_by_their_rarest() -> None:
    values = {("1", "212", f"{number:07d}") for number in range(2_000)} | {("maria", "keller"), ("maria", "okafor")}
    index = ValueIndex(values)
    assert max(map(len, index._by_rarest.values())) == 1
    assert index.find("call +1 212 0000042 now", ()) == (6, 19)
    assert index.find("1 1 1 212 212 0002001 maria", ()) is None
    assert index.find("by Maria Okafor", ()) == (3, 15)
    assert index.find("by Maria Okafor", [(3, 8)]) is None
