"""Texts are equal on the level that is compared at, and what looks personal is masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.text.normalization import exact_key, normalize, placeholder_view, prompt_views, strip_template


def message_row(prompt: str, *, context: str) -> dict[str, object]:
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": "Yes."}]
    return {"messages": messages, "context": context}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is my CARD?", "where is  my\ncard?"),
        ("ﬁle №5", "file no5"),
        ("STRASSE", "straße"),
        ("e\u0301", "é"),
    ],
)
def test_case_space_and_compatibility_forms_make_no_difference(one: str, other: str) -> None:
    assert normalize(one) == normalize(other)
    assert exact_key(one) == exact_key(other)


def test_keys_tell_fields_apart() -> None:
    assert exact_key("ab", "c") != exact_key("a", "bc")


@given(st.text())
def test_normalising_twice_equals_once(text: str) -> None:
    assert normalize(normalize(text)) == normalize(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mail me at ada@example.com", "mail me at bob.k@test.org"),
        ("see https://a.example/x?y=1", "see http://b.example"),
        ("call +1 (212) 555-0199 now", "call 617-555-0123 now"),
        ("card 4111 1111 1111 1111.", "card 5500-0000-0000-0004."),
        ("account VX-123456 is closed", "account VX-998877 is closed"),
        ("born 1980-02-03", "born 03/04/1991"),
        ("order 123456", "order 98765432"),
        ("from 203.0.113.7", "from 192.0.2.55"),
    ],
)
def test_personal_looking_parts_are_masked(one: str, other: str) -> None:
    assert placeholder_view(one) == placeholder_view(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("convert 45 kilometers", "convert 60 kilometers"), ("in 3 days", "in 5 days"), ("gate B12", "gate C9")],
)
def test_quantities_stay(one: str, other: str) -> None:
    assert placeholder_view(one) != placeholder_view(other)


def test_known_values_are_masked_wherever_they_stand() -> None:
    assert placeholder_view("I am Ada Lovelace, ADA LOVELACE!", ["Ada Lovelace"]) == "i am #, #!"


def test_a_template_needs_many_texts_to_be_one() -> None:
    texts = ["please tell me where my card is", "please tell me where my cash is"]
    assert strip_template(texts) == texts


def test_the_context_is_part_of_what_is_asked() -> None:
    rows = [
        message_row("Summarise the text.", context="A tale of two cities."),
        message_row("Summarise the text.", context="Moby-Dick."),
    ]
    one, other = prompt_views(rows)
    assert one != other


def test_a_row_that_asks_nothing_is_seen_by_its_reply() -> None:
    rows = [{"messages": [{"role": "assistant", "content": text}]} for text in ("Once upon a time", "Long long ago")]
    assert prompt_views(rows) == ["once upon a time", "long long ago"]


@pytest.mark.parametrize(
    "text", ["a" * 1_000_000 + "@", "1-" * 200_000, "(" * 100_000, "1" * 1_000_000, "x1" * 300_000, "-" * 500_000]
)
def test_a_regex_bomb_is_only_long(text: str) -> None:
    assert len(placeholder_view(text)) <= len(text)
