"""Placeholders of scrubbing are told from surrogates, markup and ordinary text."""

from __future__ import annotations

import pytest

from tasks.measures.placeholders import has_placeholder
from tasks.pii.entities import ENTITIES


@pytest.mark.parametrize("entity", sorted(ENTITIES))
@pytest.mark.parametrize("form", ["<{}>", "<{}_1>", "<{}_12>", "<{}:0f3a9c2b11de>"])
def test_every_entity_in_every_form(entity: str, form: str) -> None:
    assert has_placeholder(f"Dear {form.format(entity)}, thanks.")


@pytest.mark.parametrize(
    "text",
    [
        "Dear Anna Keller, write to desk@example.com.",  # surrogates
        "Use List<T> and Map<K, V> if a < B and C > d.",
        "<br> <p>text</p> <TABLE><TD>1</TD></TABLE>",
        "Thanks <3",
        "[SETUP] Open the app.",
        "",
    ],
)
def test_what_is_none(text: str) -> None:
    assert not has_placeholder(text)


def test_other_forms_are_a_setting() -> None:
    assert has_placeholder("Dear [NAME],", r"\[NAME\]|\{\{\w+\}\}")
    assert has_placeholder("Dear {{first_name}},", r"\[NAME\]|\{\{\w+\}\}")
    assert not has_placeholder("Dear <PERSON>,", r"\[NAME\]")
    assert not has_placeholder("Dear Anna,", "x*")  # a match of nothing is none
