"""A person's values are found alike in what is stored and in what a source gives again."""

from __future__ import annotations

import json

import pytest

from tasks.contracts.forgetting import ForgottenRows
from tasks.core.forgetting import PersonValues, SuppressedRows, value_hash
from tasks.core.secrets import id_of_key

KEY = b"a key"
LONG = "Flat 3, Block B, 12 Upper Mill Lane, Little Horton, by the old mill, near Bradford, West Yorkshire"


def suppressed(value: str) -> SuppressedRows:
    signs = PersonValues([value]).signs
    return SuppressedRows(
        ForgottenRows(
            key_env="PERENNIAL_PII_KEY",
            key_id=id_of_key(KEY),
            values=tuple(value_hash(each, KEY) for each in signs),
            lengths=tuple(map(len, signs)),
        )
    )


@pytest.mark.parametrize(
    ("value", "text", "holds"),
    [
        ("Jürgen Hinterseer", "mail JURGEN HINTERSEER", True),
        ("Jürgen Hinterseer", json.dumps({"by": "Jürgen  Hinterseer"}), True),
        ("Jürgen Hinterseer", "J&uuml;rgen&nbsp;Hinterseer", True),
        ("Nguyễn Thị Minh Khai", "Nguyễn Thị Minh Khai", True),
        ("+49 30 901820", "+4930/90 18 20", True),
        (LONG, f"to {LONG.upper()} please", True),
        ("Rich", "in Zürich", False),
        ("Hinterseer", "the Hinterseers", False),
    ],
)
def test_what_is_found_in_the_store_does_not_come_back(
    value: str, text: str, holds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_PII_KEY", KEY.decode())
    assert PersonValues([value]).holds(text) is suppressed(value).is_in(text) is holds


@pytest.mark.parametrize("arguments", [{"of": "Anna Smith"}, {"Anna Smith": 3}, {"anna.smith!": 3}])
def test_a_row_is_known_by_values_and_keys_of_its_calls(
    arguments: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_PII_KEY", KEY.decode())
    call = {"id": "call00000", "name": "find", "arguments": json.dumps(arguments)}
    row = {"id": "r1", "messages": [{"role": "assistant", "content": "", "tool_calls": [call]}]}
    assert suppressed("Anna Smith").holds(row)
    assert not suppressed("Anne Smith").holds(row)
