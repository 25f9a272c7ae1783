"""What the plan previews is what the suite finds."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tasks.validation.checking import check_rows, preview_rows
from tasks.validation.config import ValidationConfig


def _row(rng: random.Random, number: int) -> dict[str, Any]:
    roles = rng.choice([("user", "assistant"), ("user", "assistant", "user"), ("assistant",), ("user", "tool")])
    messages = [{"role": role, "content": rng.choice(["", "Hi", "x" * 90, "\x07\x07", "Привет"])} for role in roles]
    return {"id": rng.choice([f"r{number}", "same"]), "messages": messages, "label": rng.choice([None, "a", "b"])}


@pytest.mark.parametrize("seed", range(3))
def test_a_preview_quarantines_what_the_suite_quarantines(seed: int) -> None:
    rng = random.Random(seed)
    rows = [_row(rng, number) for number in range(80)]
    config = ValidationConfig(max_prompt_chars=60, allowed_labels=("a",), min_latin_share=0.5)
    found, expected = (
        [(row["id"], row["reason"]) for row in check(rows, "messages", config).quarantined_rows]
        for check in (preview_rows, check_rows)
    )
    assert found == expected
