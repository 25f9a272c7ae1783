"""Calls in replies, as models write them, and their scores by hand."""

from __future__ import annotations

import json

import pytest

from tasks.measures.tool_calls import Call, call_reward, call_scores, calls_in

ROME = Call("forecast", {"city": "Rome", "days": 2})
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    json.dumps({"type": "function", "function": {"name": name, "parameters": SCHEMA}}) for name in ("forecast", "clock")
]
CALL = '{"name": "forecast", "arguments": {"city": "Rome", "days": 2}}'


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>\n{CALL}\n</tool_call>",
        f"Let me look.\n<tool_call>{CALL}",
        CALL.replace("arguments", "parameters"),
        f"[TOOL_CALLS] [{CALL}]",
        f"[{CALL}]",
        f"Action: ```json\n[{CALL.replace('name', 'tool_name').replace('arguments', 'parameters')}]\n```",
        '[TOOL_CALLS]forecast[ARGS]{"city": "Rome", "days": 2}',
        ' to=functions.forecast<|channel|>commentary json<|message|>{"city": "Rome", "days": 2}',
        "<function=forecast>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>",
        json.dumps({"type": "function", "function": {"name": "forecast", "arguments": '{"city": "Rome", "days": 2}'}}),
    ],
)
def test_a_call_is_read_in_the_forms_that_models_write(text: str) -> None:
    assert calls_in(text) == [ROME]


@pytest.mark.parametrize(
    "text", ['forecast{"city": "Rome", "days": 2}', 'to=functions.forecastcommentary json{"city": "Rome", "days": 2}']
)
def test_a_call_is_read_without_special_tokens_by_the_names_of_the_tools(text: str) -> None:
    assert calls_in(text, ["cast", "forecast"]) == [ROME]


@pytest.mark.parametrize("text", ["", "It is warm.", '{"city": "Rome"}', "[1, 2]", "{oops", '{"name": "Bob"}'])
def test_other_text_holds_no_call(text: str) -> None:
    assert calls_in(text) == []


@pytest.mark.parametrize(
    ("reply", "valid", "name", "f1", "sequence"),
    [
        (CALL, 1.0, 1.0, 1.0, 1.0),
        (CALL.replace("2", "2.0"), 1.0, 1.0, 1.0, 1.0),
        (CALL.replace("Rome", "Oslo"), 1.0, 1.0, 0.5, 0.0),
        (CALL.replace("2", '"two"'), 0.0, 1.0, 0.5, 0.0),
        (CALL.replace("forecast", "clock"), 1.0, 0.0, 0.0, 0.0),
        (CALL.replace("forecast", "missing"), 0.0, 0.0, 0.0, 0.0),
        (CALL + CALL, 1.0, 0.0, 2 / 3, 0.0),
        ("It is warm.", 0.0, 0.0, 0.0, 0.0),
    ],
)
def test_scores_by_hand(reply: str, valid: float, name: float, f1: float, sequence: float) -> None:
    scores = call_scores(reply, [ROME], TOOLS)
    assert scores == {
        "call_decision": float("{" in reply),
        "valid_call": valid,
        "call_name": name,
        "argument_f1": pytest.approx(f1),
        "call_sequence": sequence,
    }


def test_the_order_of_calls_counts_only_in_the_sequence() -> None:
    two = [Call("forecast", {"city": "Rome"}), Call("clock", {"city": "Oslo"})]
    reply = "\n".join(json.dumps({"name": name, "arguments": given}) for name, given in reversed(two))
    scores = call_scores(reply, two, TOOLS)
    assert (scores["valid_call"], scores["call_name"], scores["argument_f1"], scores["call_sequence"]) == (
        1.0,
        1.0,
        1.0,
        0.0,
    )


def test_validity_is_not_measured_without_tools_or_by_a_reference_that_is_not_valid() -> None:
    assert call_scores(CALL, [ROME], [])["valid_call"] is None
    assert call_scores(CALL, [Call("forecast", {})], TOOLS)["valid_call"] is None


def test_a_reward_is_for_calling_where_a_call_is_expected_alone() -> None:
    assert call_reward(CALL, [ROME], TOOLS) == 1.0
    assert call_reward("Warm.", [ROME], TOOLS) == 0.0
    assert call_reward(CALL, [], TOOLS) == 0.0
    assert call_reward("Warm.", [], TOOLS) == 1.0
    assert call_reward("Warm.", [], []) == 0.0
