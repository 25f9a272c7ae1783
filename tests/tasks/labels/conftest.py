"""Small made-up data with known faults; TF-IDF vectors, so that no test here loads a model unless it says so."""

from __future__ import annotations

import random
from typing import Any

import pytest

TOPICS = {
    "billing": ["invoice", "payment", "refund", "card", "charge", "receipt", "price", "discount"],
    "shipping": ["parcel", "courier", "delivery", "tracking", "address", "warehouse", "box", "postage"],
    "account": ["password", "login", "email", "profile", "username", "security", "session", "account"],
    "device": ["battery", "screen", "speaker", "cable", "button", "firmware", "charger", "sensor"],
}
OPENINGS = ("My", "Hello, the", "Since Monday the", "Please look at my", "There is a fault with the", "I asked about the")
REPLIES = (
    "Please open the {a} page and check your {b} there.",
    "We have looked at the {a}, and the {b} will be corrected today.",
    "Thank you for writing about the {a}. Your {b} is safe with us.",
    "First restart the {a}, then send us a picture of the {b}.",
)


def make_row(number: int, rng: random.Random, *, label: bool = True) -> dict[str, Any]:
    """One clean row: an instruction on one topic and a reply on the same things."""
    topic = sorted(TOPICS)[number % len(TOPICS)]
    a, b, c = rng.sample(TOPICS[topic], 3)
    prompt = f"{rng.choice(OPENINGS)} {a} and the {b} are wrong, and so is the {c}. Case {number}."
    return {
        "id": f"r{number:04d}",
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": rng.choice(REPLIES).format(a=a, b=b)},
        ],
        "label": topic if label else None,
    }


@pytest.fixture(scope="session")
def clean_rows() -> list[dict[str, Any]]:
    rng = random.Random(4)
    return [make_row(number, rng) for number in range(240)]


@pytest.fixture(scope="session")
def faulty_rows(clean_rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The clean rows with a wrong label in one of 24 and a cut reply in one of 60."""
    rows = [dict(row) for row in clean_rows]
    for index in range(0, 240, 24):
        rows[index]["label"] = clean_rows[(index + 1) % 240]["label"]
    for index in range(5, 240, 60):
        text = rows[index]["messages"][1]["content"]
        rows[index]["messages"] = [rows[index]["messages"][0], {"role": "assistant", "content": text[: len(text) // 2]}]
    return rows
