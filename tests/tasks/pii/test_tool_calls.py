"""Personal values inside arguments and results are replaced; what a program reads stays as it was."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.pii.key_context import personal_values, prefix_of
from tasks.pii.policy import Policy
from tasks.pii.rows import scrub_rows

ARGUMENTS = {
    "customer_name": "otter",
    "email": "bob.stone@corp.example",
    "ssn": "219099999",
    "phone": 4155550132,
    "order": {"id": "A-20431", "express": True, "items": [1, 2], "note": None},
    "unit": "celsius",
}
RESULT = {"status": "open", "owner": {"name": "Maria Lopez", "iban": "DE89370400440532013000"}, "count": 3}
TOOL = {
    "type": "function",
    "function": {
        "name": "open_ticket",
        "description": "Opens a ticket; ask bob.stone@corp.example for access.",
        "parameters": {"type": "object", "properties": {"email": {"type": "string", "description": "Of the customer."}}},
    },
}


def row(arguments: dict[str, Any] = ARGUMENTS, result: Any = RESULT) -> dict[str, Any]:
    call = {"id": "call00000", "name": "open_ticket", "arguments": json.dumps(arguments)}
    return {
        "id": "r1",
        "messages": [
            {"role": "user", "content": "Please open a ticket, otter here."},
            {"role": "assistant", "content": "One moment.", "tool_calls": [call]},
            {"role": "tool", "content": json.dumps(result), "tool_call_id": "call00000"},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": [json.dumps(TOOL)],
    }


def test_values_are_replaced_and_structure_stays(strict: Policy) -> None:
    [scrubbed] = scrub_rows([row()], strict).kept
    arguments = json.loads(scrubbed["messages"][1]["tool_calls"][0]["arguments"])
    result = json.loads(scrubbed["messages"][2]["content"])
    assert list(arguments) == list(ARGUMENTS)
    assert [type(value) for value in arguments.values()] == [type(value) for value in ARGUMENTS.values()]
    assert arguments["order"] | {"id": ""} == {"id": "", "express": True, "items": [1, 2], "note": None}
    assert (arguments["unit"], result["status"], result["count"]) == ("celsius", "open", 3)
    written = json.dumps(scrubbed)
    for value in ("otter", "bob.stone", "219099999", "4155550132", "A-20431", "Lopez", "DE8937"):
        assert value not in written
    assert json.loads(scrubbed["tools"][0])["function"]["parameters"] == TOOL["function"]["parameters"]
    assert "<EMAIL_ADDRESS>" in json.loads(scrubbed["tools"][0])["function"]["description"]


def test_findings_name_the_place_of_a_value(strict: Policy) -> None:
    original = row()
    result = scrub_rows([original], strict)
    found = {finding["field"]: finding for finding in result.findings}
    place = found["messages.1.tool_calls.0.email"]
    assert ARGUMENTS["email"][place["start"] : place["end"]] == ARGUMENTS["email"]
    assert place["output_start"] == 0
    assert "messages.2.content.owner.iban" in found


@pytest.mark.parametrize("value", ["", "x", "Where is it?", "Call bob.stone@corp.example", "bob.stone@corp.example now"])
@pytest.mark.parametrize("key", ["ssn", "customer_name_of_jane_roe", "mail bob@corp.example", "date"])
def test_a_key_adds_nothing_to_its_value(turbo: Policy, key: str, value: str) -> None:
    [scrubbed] = scrub_rows([row({key: value})], turbo).kept
    [(_, replaced)] = json.loads(scrubbed["messages"][1]["tool_calls"][0]["arguments"]).items()
    expected = value.replace("bob.stone@corp.example", "<EMAIL_ADDRESS>")
    assert replaced == expected or "name" in key


@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("messages.0.content", ""),
        ("context", ""),
        ("tools.0.function.description", ""),
        ("messages.1.tool_calls.0.customerName", "customer name: "),
        ("messages.1.tool_calls.0.items.3.#0.value.SSN_no", "items ssn no: "),
        ("messages.2.content.owner.iban", "owner iban: "),
    ],
)
def test_the_keys_of_a_value_are_its_context(path: str, prefix: str) -> None:
    assert prefix_of(path) == prefix


def test_values_under_personal_keys_are_known_values() -> None:
    found = personal_values(
        row({"customerName": "a", "owner": {"name": "b"}, "name": "tool", "work_email": "c", "city": "d"}, {})
    )
    assert found == ["a", "b", "c"]
