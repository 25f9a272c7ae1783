"""Conversations in the forms that people have: their tools and calls are read as meant, or refused by name."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.core.reasons import remedy_for
from tasks.core.rows import reply, rows_of, rows_to_table
from tasks.ingest.config import SourceConfig
from tasks.ingest.faults import RowFaultError
from tasks.ingest.formats import find_format, is_disliked, to_row
from tasks.ingest.tool_schemas import read_tools

ROOT = Path(__file__).parents[3]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "forecast", "description": "Tells the weather.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": FUNCTION}
ASK = {"role": "user", "content": "Weather in Rome and Oslo?"}
DONE = {"role": "assistant", "content": "Warm, then cold."}


def call(city: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "forecast", "arguments": json.dumps({"city": city})}, **more}


def tagged(city: str) -> str:
    return f'<tool_call>\n{{"name": "forecast", "arguments": {{"city": "{city}"}}}}\n</tool_call>'


OPENAI = {
    "messages": [
        ASK,
        {"role": "assistant", "content": None, "tool_calls": [call("Rome", id="a"), call("Oslo", id="b")]},
        {"role": "tool", "tool_call_id": "a", "content": "warm"},
        {"role": "tool", "tool_call_id": "b", "content": "cold"},
        DONE,
    ],
    "tools": [TOOL],
}
SHAREGPT = {
    "conversations": [
        {"from": "human", "value": ASK["content"]},
        {"from": "function_call", "value": json.dumps([call(city)["function"] for city in ("Rome", "Oslo")])},
        {"from": "observation", "value": "warm"},
        {"from": "observation", "value": "cold"},
        {"from": "gpt", "value": DONE["content"]},
    ],
    "tools": json.dumps([FUNCTION]),
}
HERMES = {
    "conversations": [
        {"from": "system", "value": f"You call functions within <tools></tools> tags: <tools>{json.dumps(TOOL)}</tools>"},
        {"from": "human", "value": ASK["content"]},
        {"from": "gpt", "value": f"{tagged('Rome')}\n{tagged('Oslo')}"},
        {"from": "tool", "value": "<tool_response>\nwarm\n</tool_response>\n<tool_response>\ncold\n</tool_response>"},
        {"from": "gpt", "value": DONE["content"]},
    ]
}
TRL = {
    "prompt": [ASK],
    "completion": [
        {"role": "assistant", "tool_calls": [{"function": {"name": "forecast", "arguments": {"city": "Rome", "zip": None}}},
                                             {"function": {"name": "forecast", "arguments": {"city": "Oslo"}}}]},
        {"role": "tool", "name": "forecast", "content": "warm"},
        {"role": "tool", "name": "forecast", "content": "cold"},
        DONE,
    ],
    "tools": [TOOL],
}  # fmt: skip
ANTHROPIC = {
    "messages": [
        ASK,
        {"role": "assistant", "content": [{"type": "tool_use", "id": city, "name": "forecast", "input": {"city": city}}
                                          for city in ("Rome", "Oslo")]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "Rome", "content": "warm"},
                                     {"type": "tool_result", "tool_use_id": "Oslo", "content": "cold"}]},
        DONE,
    ],
    "tools": [{"name": "forecast", "description": "Tells the weather.", "input_schema": PARAMETERS}],
}  # fmt: skip


def read(record: dict[str, Any], notes: Counter[str] | None = None) -> dict[str, Any]:
    config = SourceConfig(path="rows.jsonl")
    return to_row(record, find_format([record], config, "rows.jsonl"), config, "rows.jsonl", notes)


def fault(record: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(RowFaultError) as caught:
        read(record)
    return caught.value.reason, caught.value.field


@pytest.mark.parametrize("record", [OPENAI, SHAREGPT, HERMES, TRL, ANTHROPIC])
def test_one_conversation_in_five_forms_is_one_row(record: dict[str, Any]) -> None:
    row = read(record)
    calls = [
        {"id": f"call0000{number}", "name": "forecast", "arguments": json.dumps({"city": city})}
        for number, city in enumerate(("Rome", "Oslo"))
    ]
    messages = [message for message in row["messages"] if message["role"] != "system"]
    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert [{key: found[key] for key in sorted(found)} for found in messages[1]["tool_calls"]] == [
        {key: expected[key] for key in sorted(expected)} for expected in calls
    ]
    assert [(message["content"], message["tool_call_id"]) for message in messages[2:4]] == [
        ("warm", "call00000"),
        ("cold", "call00001"),
    ]
    assert [json.loads(tool) for tool in row["tools"]] == [TOOL]


def test_functions_and_developer_texts_are_read() -> None:
    row = read(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                ASK,
                {"role": "assistant", "content": None, "function_call": call("Rome")["function"]},
                {"role": "function", "name": "forecast", "content": "warm"},
                DONE,
            ],
            "functions": [FUNCTION],
        }
    )
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert json.loads(row["tools"][0]) == TOOL


def test_text_beside_a_call_stays_beside_it() -> None:
    row = read({"messages": [ASK, {"role": "assistant", "content": "Let me look.", "tool_calls": [call("Rome")]}]})
    assert row["messages"][-1]["content"] == "Let me look."
    assert reply(row) == f"Let me look.\n{tagged('Rome')}"


def test_what_a_system_text_says_beside_its_tools_is_kept() -> None:
    form = f"# Tools\n\nFunctions stand in <tools></tools> tags:\n<tools>\n{json.dumps(TOOL)}\n</tools>"
    text = f"Be kind.\n\n{form}\n\nSay please."
    notes: Counter[str] = Counter()
    row = read({"messages": [{"role": "system", "content": text}, ASK, DONE]}, notes)
    assert row["messages"][0]["content"] == "Be kind.\n\nSay please."
    assert notes.total() == 1


def test_an_end_without_a_reply_is_cut_and_counted() -> None:
    notes: Counter[str] = Counter()
    row = read({"messages": [ASK, DONE, {"role": "user", "content": "Thanks!"}]}, notes)
    assert row["messages"] == [ASK, DONE]
    assert notes.total() == 1


def test_an_empty_system_text_is_none() -> None:
    assert read({"messages": [{"role": "system", "content": " "}, ASK, DONE]})["messages"] == [ASK, DONE]


@pytest.mark.parametrize("zero", [{"weight": 0}, {"weight": 0.0}, {"train": False}])
def test_replies_of_weight_zero_are_not_learned(zero: dict[str, Any]) -> None:
    row = read({"messages": [ASK, {**DONE, **zero}, ASK, {**DONE, "weight": 1}, ASK, {**DONE, **zero}]})
    assert row["messages"] == [ASK, {**DONE, "learned": False}, ASK, DONE]
    assert fault({"messages": [ASK, {**DONE, **zero}]}) == ("nothing_to_learn", "messages.1.weight")


@pytest.mark.parametrize("content", ["", None])
def test_tools_beside_a_system_message_are_read(content: str | None) -> None:
    row = read({"messages": [{"role": "system", "content": content, "tools": [TOOL]}, ASK, DONE]})
    assert row["messages"] == [ASK, DONE]
    assert json.loads(row["tools"][0]) == TOOL


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_beside_the_content_is_counted(key: str) -> None:
    notes: Counter[str] = Counter()
    row = read({"messages": [ASK, {**DONE, key: "Let me think."}]}, notes)
    assert row["messages"] == [ASK, DONE]
    assert notes.total() == 1


def test_parts_of_text_are_joined() -> None:
    parts = [{"type": "text", "text": "One"}, {"type": "input_text", "text": "Two"}]
    assert read({"messages": [{"role": "user", "content": parts}, DONE]})["messages"][0]["content"] == "One\nTwo"


@pytest.mark.parametrize(
    ("turn", "reason", "field"),
    [
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "image_content", "messages.0.content.0"),
        ({"role": "user", "content": [{"type": "input_audio"}]}, "input_audio_content", "messages.0.content.0"),
        ({"role": "assistant", "tool_calls": [call("x") | {"function": {"name": "f", "arguments": "{oops"}}]},
         "malformed_call", "messages.0.tool_calls.0.arguments"),
        ({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}, "malformed_call",
         "messages.0.tool_calls.0"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "malformed_call",
         "messages.0.tool_calls.0"),
        ({"role": "assistant", "content": "<tool_call>{oops</tool_call>"}, "malformed_call", "messages.0.content"),
        ({"role": "tool", "content": "warm"}, "result_without_call", "messages.0.tool_call_id"),
        ({"role": "user", "content": "x", "tool_calls": [call("x")]}, "call_outside_a_reply", "messages.0"),
        ({"role": "assistant", "content": "x", "weight": 3}, "unknown_weight", "messages.0.weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_by_name(turn: dict[str, Any], reason: str, field: str) -> None:
    assert fault({"messages": [turn, DONE]}) == (reason, field)


def test_every_reason_has_a_remedy_of_its_own() -> None:
    source = "".join((ROOT / "tasks" / "ingest" / name).read_text() for name in ("chats.py", "tool_schemas.py"))
    reasons = set(re.findall(r'RowFaultError\(\s*"([a-z_]+)"', source)) | {"image_content", "input_audio_content"}
    assert len(reasons) > 8
    fallback = remedy_for("ingest", "no such reason")
    assert [reason for reason in sorted(reasons) if remedy_for("ingest", reason) == fallback] == []


def test_calls_of_tools_that_are_not_stated_are_counted() -> None:
    notes: Counter[str] = Counter()
    read({"messages": [ASK, {"role": "assistant", "tool_calls": [call("Rome")]}]}, notes)
    assert notes.total() == 1


@pytest.mark.parametrize(
    "tools",
    [
        "no json",
        [{"description": "no name"}],
        [{"name": "f", "parameters": {"type": "thing"}}],
        [{"name": "f", "parameters": {"properties": {"n": {"default": float("nan")}}}}],
    ],
)
def test_tools_that_cannot_be_read_are_refused(tools: Any) -> None:
    assert fault({"messages": [ASK, DONE], "tools": tools})[0] == "malformed_tools"


def test_types_by_their_names_in_python_are_read() -> None:
    bare = {"name": "f", "parameters": {"type": {"type": "str", "description": "A kind."}, "n": {"type": "List[int]"}}}
    wrapped = {"name": "f", "parameters": {"type": "dict", "properties": {"n": {"type": "float", "default": "int"}}}}
    bare["parameters"].pop("type")
    assert json.loads(read_tools([bare], "tools")[0])["function"]["parameters"] == {
        "type": "object",
        "properties": {"n": {"type": "array"}},
    }
    assert json.loads(read_tools([wrapped], "tools")[0])["function"]["parameters"] == {
        "type": "object",
        "properties": {"n": {"type": "number", "default": "int"}},
    }


def test_rows_with_and_without_tools_pass_through_a_table() -> None:
    plain = read({"messages": [ASK, DONE], "id": "plain"})
    called = {**read(OPENAI), "id": "called"}
    first, second = rows_of(rows_to_table([plain, called], "messages"))
    assert "tools" not in first
    assert first["messages"] == [ASK, DONE]
    assert second["messages"] == called["messages"]
    assert second["tools"] == called["tools"]


# -------------------------------------------------------------------------------------------------------------- preferences


def test_dialogues_in_one_text_are_pairs() -> None:
    start = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Help\n\nAssistant: "
    row = read({"chosen": start + "Gladly", "rejected": start + "No"})
    assert [message["content"] for message in row["prompt"]] == ["Hi", "Yes?", "Help"]
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("Gladly", "No")


def test_openai_pairs_are_read_with_their_tools() -> None:
    side = {"role": "assistant", "tool_calls": [call("Rome")]}
    row = read({"input": {"messages": [ASK], "tools": [TOOL]}, "preferred_output": [side], "non_preferred_output": [DONE]})
    assert row["chosen"][0]["tool_calls"][0]["name"] == "forecast"
    assert json.loads(row["tools"][0]) == TOOL


def test_what_both_sides_of_a_pair_share_is_the_prompt() -> None:
    middle = [DONE, {"role": "user", "content": "And Oslo?"}]
    row = read({"prompt": [ASK], "chosen": [*middle, {**DONE, "content": "Cold"}], "rejected": [*middle, DONE]})
    assert row["prompt"] == [ASK, *middle]
    assert row["chosen"][0]["content"] == "Cold"


def test_sides_that_part_before_their_last_reply_are_refused() -> None:
    other = [{**DONE, "content": "No idea."}, ASK, DONE]
    assert fault({"prompt": [ASK], "chosen": [DONE, ASK, DONE], "rejected": other}) == ("sides_are_talks", "chosen")


def test_a_false_label_beside_a_completion_is_a_verdict() -> None:
    config = SourceConfig(path="rows.jsonl")
    rated = {"prompt": "Hi", "completion": "Hello"}
    assert is_disliked({**rated, "label": False}, config)
    assert not is_disliked({**rated, "label": True}, config)
    assert read({**rated, "label": True})["label"] is None
    assert read({**rated, "label": "greeting"})["label"] == "greeting"
