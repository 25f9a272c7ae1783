"""Every door for a person's words refuses what a registry on PostgreSQL would break off at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from prefect.utilities.callables import parameter_schema
from pydantic import ValidationError

from flows.rollback import rollback
from flows.support.approvals import ApprovalForm, read_answer
from flows.support.requests import RunRequest
from perennial.operations.rollout import abort_rollout
from tasks.core.errors import InputError
from tasks.core.typed_text import check_text, cut
from tasks.registry import RegistryConfig
from tasks.registry.approval import Answer

DOORS: dict[str, Callable[[str], Any]] = {
    "answer, name": lambda text: Answer(verdict="approve", name=text, reason="why"),
    "answer, reason": lambda text: Answer(verdict="approve", name="Ada", reason=text),
    "form, reason": lambda text: ApprovalForm(answer="reject", name="Ada", reason=text),
    "form, name": lambda text: ApprovalForm(answer="reject", name=text, reason="why"),
    "command": lambda text: read_answer("approve", "Ada", text),
    "request": lambda text: RunRequest(reason=text),
    "rollout": lambda text: abort_rollout(RegistryConfig(model_name="desk"), text),
    "text": lambda text: check_text(text, "--reason"),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("text", ["rude\x00replies", "rude\x1b[2Jreplies", "rude \u202eseilper", "x" * 1001])
def test_what_cannot_be_kept_is_refused(door: str, text: str) -> None:
    with pytest.raises((ValidationError, InputError)):
        DOORS[door](text)


@pytest.mark.parametrize("door", [door for door in DOORS if door != "rollout"])
def test_ordinary_words_in_any_script_pass(door: str) -> None:
    text = "Zu unhöflich:\n\t客服回复 – 50 % schlechter 🙂"
    taken = DOORS[door](text)
    assert text in (taken if isinstance(taken, str) else dict(taken).values())


def test_prefects_form_refuses_it_before_a_run_exists() -> None:
    schema = Draft202012Validator(parameter_schema(rollback).model_dump(mode="json")["properties"]["reason"])
    assert schema.is_valid("rude replies")
    assert not schema.is_valid("rude\x00replies")


@given(st.text(max_size=2000))
def test_what_was_let_in_earlier_becomes_keepable(text: str) -> None:
    kept = cut(text)
    assert len(kept) <= 1000
    assert "\x00" not in kept
    kept.encode()
    assert cut(kept) == kept
    if kept.strip():
        assert check_text(kept, "it") == kept.strip()
