"""Two hundred hostile lines, and ordinary ones to hide them among: what the data stages survive without losing a row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

MEGABYTE = 1_000_000
_TOPICS = ("a refund", "an invoice", "the heating", "my parcel", "a password", "the router", "a warranty", "a booking")
_ASKS = ("Where do I find {}?", "Who can help me with {} on a Sunday?", "Please explain the rules about {} once more.")


def ordinary_lines(count: int = 60) -> list[str]:
    """Clean instruction and reply rows that differ from each other, as JSON lines with ids ``ok-…``."""
    rows = []
    for number in range(count):
        ask, topic = _ASKS[number % len(_ASKS)], _TOPICS[number // len(_ASKS) % len(_TOPICS)]
        detail = f" {_spelt(number)} of us {_spelt(number * 7 + 3)} times"
        rows.append(
            {"id": f"ok-{number}", "instruction": ask.format(topic) + detail, "output": f"{_spelt(number)} steps help."}
        )
    return [json.dumps(row) for row in rows]


def hostile_lines(count: int = 200) -> list[str]:
    """Hostile JSON lines (some are no JSON), each kind in turn, with ids ``bad-…`` where they have one."""
    return list(islice(_endless(), count))


def _spelt(number: int) -> str:
    """The number's digits as words, so that no stage takes it for personal data."""
    words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return "-".join(words[int(digit)] for digit in str(number))


def _endless() -> Iterator[str]:
    number = 0
    while True:
        for line in _kinds(number):
            yield line
            number += 1


def _kinds(number: int) -> Iterator[str]:
    texts: list[Any] = [
        "bell \x07 escape \x1b[31m backspace \x08 delete \x7f",
        "\x85\x90" * 200,
        f"megabyte of words {number} " + "word " * (MEGABYTE // 5),
        f"megabyte without a space {number} " + "a" * MEGABYTE + "@",
        "1" * MEGABYTE,
        "1-" * 50_000 + "x",
        "a" * 50_000 + "!" + "(" * 5_000,
        f"override {number} \u202eesrever\u202c isolate \u2066x\u2069 mark \u200f",
        "z" + "\u0301" * 5_000,
        "zero\u200bwidth\u200cjoiner\u200d\ufeff",
        "line\u2028paragraph\u2029separators\x0b\x0c\x1c",
        "family 👩‍👩‍👧‍👦 flag 🏳️‍🌈 private \ue000 noncharacter \ufffe",
        "\ufffd" * 50,
        "<script>alert(1)</script> =cmd|' /C calc'!A0 '; DROP TABLE rows; -- ${jndi:ldap://x}",
        "{text} %s %(x)s {0.__class__} \\u0041",
        "   \t\n  ",
        "",
        {"nested": [{"deep": ["json", 1, None]}]},
        ["a", "list"],
        42,
        float("nan"),
        True,
        None,
        "surrogate \ud800 alone",
        "pair the wrong way \udc00\ud800",
        "nul \x00 inside",
    ]
    for text in texts:
        yield json.dumps({"id": f"bad-{number}-{len(str(text))}", "instruction": f"Question {number}", "output": text})
    for text in texts:
        if isinstance(text, str):
            yield json.dumps({"id": f"bad-i-{number}-{len(text)}", "instruction": text, "output": f"Answer {number}."})
    yield "[" * 100_000
    yield '{"id": ' + "9" * 5_000 + ', "instruction": "Huge id", "output": "Huge."}'
    yield '{"id": "bad-cut", "instruction": "cut o'
    yield "not json at all \x01"
    yield json.dumps(["a", "row", "of", "cells"])
    yield "null"
    yield '"a string"'
    yield json.dumps({"id": "bad-twice", "instruction": "One id", "output": f"two meanings {number}"})
    yield json.dumps({"id": "bad-same", "instruction": "One id, one meaning", "output": "Said twice."})
    yield json.dumps({"id": "e" * 10_000, "instruction": "A long id", "output": "Short."})
    yield json.dumps({"id": "ada@example.com \x07", "instruction": "A personal id", "output": "Masked."})
    yield json.dumps({"id": {"no": "id"}, "instruction": "An object as id", "output": "Refused."})
    yield json.dumps({"id": f"bad-none-{number}"})
    yield json.dumps({})
