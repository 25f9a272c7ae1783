"""Texts inside calls and results are found and replaced; keys, types and JSON stay."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from tasks.core.tool_calls import json_texts, message_texts, replace_message_texts, replace_tool_texts, tool_texts

NESTED = {
    "to": "bob@example.com",
    "phone": 4155550123,
    "few": 12,
    "flag": True,
    "none": None,
    "bob@example.com": {"note": '{"inner": "bob@example.com"}'},
}
MESSAGE = {
    "role": "assistant",
    "content": "Writing to bob@example.com",
    "tool_calls": [{"id": "call00000", "name": "send", "arguments": json.dumps(NESTED)}],
}
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def masked(path: str, text: str) -> str:
    return text.replace("bob@example.com", "<EMAIL>").replace("4155550123", "<PHONE>")


def test_every_value_of_a_call_is_a_text_under_its_place() -> None:
    found = dict(message_texts("messages.1", MESSAGE))
    assert found == {
        "messages.1.content": "Writing to bob@example.com",
        "messages.1.tool_calls.0.to": "bob@example.com",
        "messages.1.tool_calls.0.phone": "4155550123",
        "messages.1.tool_calls.0.#5": "bob@example.com",
        "messages.1.tool_calls.0.#5.value.note.inner": "bob@example.com",
    }


def test_replaced_arguments_keep_their_keys_and_types() -> None:
    changed = replace_message_texts("messages.1", MESSAGE, masked)
    assert json.loads(changed["tool_calls"][0]["arguments"]) == {
        "to": "<EMAIL>",
        "phone": 0,
        "few": 12,
        "flag": True,
        "none": None,
        "<EMAIL>": {"note": '{"inner": "<EMAIL>"}'},
    }
    assert changed["tool_calls"][0]["name"] == "send"


def test_a_result_that_is_json_stays_json() -> None:
    result = {"role": "tool", "content": '[{"mail":"bob@example.com"}]', "tool_call_id": "call00000"}
    assert dict(message_texts("m", result)) == {"m.content.0.mail": "bob@example.com"}
    assert json.loads(replace_message_texts("m", result, masked)["content"]) == [{"mail": "<EMAIL>"}]
    assert replace_message_texts("m", result, lambda path, text: text) == result


def test_descriptions_of_a_tool_are_texts_and_its_names_are_none() -> None:
    tool = json.dumps(
        {
            "type": "function",
            "function": {
                "name": "send",
                "description": "Ask bob@example.com",
                "parameters": {"type": "object", "properties": {"name": {"type": "string", "default": "bob@example.com"}}},
            },
        }
    )
    assert [text for _, text in tool_texts("tools.0", tool)] == ["Ask bob@example.com", "bob@example.com"]
    assert replace_tool_texts("tools.0", tool, masked) == tool.replace("bob@example.com", "<EMAIL>")


@given(JSON_VALUES)
def test_any_json_keeps_its_shape_and_its_paths_are_distinct(value: object) -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": json.dumps({"x": value})}]}
    assert replace_message_texts("m", message, lambda path, text: text) == message
    paths = [path for path, _ in json_texts("m", value)]
    assert len(set(paths)) == len(paths)
    changed = replace_message_texts("m", message, lambda path, text: "<X>")["tool_calls"][0]["arguments"]
    assert isinstance(json.loads(changed)["x"], type(value))
