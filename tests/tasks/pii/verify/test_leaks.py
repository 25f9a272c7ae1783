"""Readers that take no part in scrubbing: what they find, what they leave, and that they name no value."""

from __future__ import annotations

import pytest

from tasks.pii.verify.canaries import make_canaries
from tasks.pii.verify.leaks import find_leaks, read_values


def row(text: str) -> dict[str, object]:
    return {"id": "r7", "messages": [{"role": "user", "content": text}]}


@pytest.mark.parametrize(
    ("text", "value", "entity"),
    [
        ("write to jo.doe+x@corp.example.", "jo.doe+x@corp.example", "EMAIL_ADDRESS"),
        ("(MARIA@EXAMPLE.ORG)", "MARIA@EXAMPLE.ORG", "EMAIL_ADDRESS"),
        ("from 192.168.10.44, at night", "192.168.10.44", "IP_ADDRESS"),
        ("host 2001:db8::8a2e:370:7334", "2001:db8::8a2e:370:7334", "IP_ADDRESS"),
        ("ring +44 7700 900123 now", "+44 7700 900123", "PHONE_NUMBER"),
        ("ring +49 (0)30 901820.", "+49 (0)30 901820", "PHONE_NUMBER"),
    ],
)
def test_a_value_that_stands_open_is_found(text: str, value: str, entity: str) -> None:
    start = text.index(value)
    assert list(read_values(text)) == [(start, start + len(value), entity)]
    (leak,) = find_leaks([row(text)], {})
    assert (leak.row_id, leak.field, leak.entity) == ("r7", "messages.0.content", entity)
    assert value not in str(leak)
    assert find_leaks([row(text)], {("r7", "messages.0.content"): [(start, start + len(value))]}) == []
    assert find_leaks([row(text)], {}, [value.upper()]) == []


@pytest.mark.parametrize(
    "text",
    ["<EMAIL_ADDRESS> and <PHONE_NUMBER>", "no mail here @ all", "meet @ 10:30", "version 1.2.3", "10:20:30", "::", "1+1=2",
     "C++ and +5 points", "a@b", "see foo@bar, it is a tag", "127.0.0.1", "12/05/2024", "", "@", "...", "0.0.0.0"],
)  # fmt: skip
def test_what_is_no_value_is_left(text: str) -> None:
    assert list(read_values(text)) == []


def test_the_readers_find_what_people_write() -> None:
    """Canaries are made by another module: every e-mail and network address in them is read."""
    canaries = [canary for canary in make_canaries(2000, 3) if canary.entity in ("EMAIL_ADDRESS", "IP_ADDRESS")]
    missed = [canary for canary in canaries if canary.entity not in {entity for _, _, entity in read_values(canary.text)}]
    assert len(canaries) > 200
    assert not missed
