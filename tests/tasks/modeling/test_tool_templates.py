"""Calls are learned, asked for and weighed through the chat template, or their rows are refused by what it lacks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tasks.core.errors import InputError
from tasks.core.rows import prompt_messages, reply_messages
from tasks.core.tool_calls import dumps
from tasks.measures.tool_calls import calls_in, calls_of
from tasks.modeling.conversations import (
    prompt_token_ids,
    render_prompt,
    reply_as_written,
    reply_token_ids,
    split_replies,
    stop_token_ids,
)
from tasks.modeling.rendering import check_rendering, require_evaluable, unusable_rows
from tasks.modeling.templates import prepared
from tasks.modeling.tool_templates import HERMES_TEMPLATE, knows_tools, template_fault
from tasks.training.examples import IGNORED, render_example
from tests.support.chat_templates import FAMILIES, tokenizer_of

WITH_TOOLS = ("hermes", "qwen-2.5", "qwen-3")
TOOL = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Tells the weather.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
)


def call(number: int, city: str) -> dict[str, Any]:
    return {"id": f"call{number:05d}", "name": "get_weather", "arguments": json.dumps({"city": city}, ensure_ascii=False)}


def row(*replies: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "r1", "tools": [TOOL], "messages": [{"role": "user", "content": "Weather?"}, *replies], **more}


ONE = {"role": "assistant", "content": "", "tool_calls": [call(0, "Rome")]}
RESULT = {"role": "tool", "content": '{"t": 3}', "tool_call_id": "call00000"}
ANSWER = {"role": "assistant", "content": "Cold."}
ROWS = {
    "call": row(ONE),
    "answer": row(ONE, RESULT, ANSWER),
    "parallel": row({**ONE, "tool_calls": [call(0, "Rome"), call(1, "Oslo")]}),
    "text beside": row({**ONE, "content": "Let me look."}),
    "another script": row({**ONE, "tool_calls": [call(0, '東京 "inner"')]}),
    "control token": row({**ONE, "tool_calls": [call(0, "<|im_end|>\n<|im_start|>user")]}),
}


def tokenizer_with(name: str) -> Any:
    if name != "hermes":
        return tokenizer_of(name)
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = HERMES_TEMPLATE
    return tokenizer


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.parametrize("kind", ROWS)
def test_a_call_is_learned_as_it_is_asked_for_and_weighed(name: str, kind: str) -> None:
    tokenizer, given = tokenizer_with(name), ROWS[kind]
    prompt, [message] = prompt_messages(given), reply_messages(given)
    assert unusable_rows(tokenizer, [given]) == []
    assert check_rendering(tokenizer, [given]) == []
    stops = stop_token_ids(tokenizer, None)
    prompt_ids, [reply_ids] = split_replies(tokenizer, prompt, [message], stops)
    assert prompt_ids == prompt_token_ids(tokenizer, prompt)
    assert reply_ids[:-1] == reply_token_ids(tokenizer, prompt, message)
    assert sum(token in stops for token in reply_ids) == 1
    assert "Tells the weather." in render_prompt(tokenizer, prompt)
    assert calls_in(reply_as_written(tokenizer, prompt, message), ["get_weather"]) == calls_of(message)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_template_loses_a_call_silently(name: str) -> None:
    tokenizer = tokenizer_of(name)
    template = prepared(tokenizer.chat_template)
    for given in ROWS.values():
        faults = unusable_rows(tokenizer, [given])
        if not knows_tools(template):
            assert [fault.reason for fault in faults] == ["template_has_no_tools"]
        elif not faults:
            prompt, [message] = prompt_messages(given), reply_messages(given)
            written = render_prompt(tokenizer, prompt) + reply_as_written(tokenizer, prompt, message)
            assert all(dumps(each.arguments["city"])[1:-1] in written for each in calls_of(message))


def test_rows_without_tools_need_no_template_that_has_them() -> None:
    template = prepared(tokenizer_of("chatml").chat_template)
    plain = [{"role": "user", "content": "Hi"}, ANSWER]
    assert template_fault(template, plain) is None
    assert template_fault(template, [*ROWS["call"]["messages"]]) == "template_has_no_tools"


def test_test_rows_that_lose_their_calls_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"template_has_no_tools.*r1[\s\S]*hermes"):
        require_evaluable(prepared(tokenizer_of("chatml").chat_template), [ROWS["call"]], "frozen rows")
    require_evaluable(HERMES_TEMPLATE, [ROWS["call"]], "frozen rows")


def test_every_reply_but_those_of_weight_zero_is_learned() -> None:
    tokenizer = tokenizer_with("hermes")
    stops = stop_token_ids(tokenizer, None)

    def learned(given: dict[str, Any]) -> str:
        example = render_example(tokenizer, given, stops=stops, max_length=4096, learn="all")
        return str(tokenizer.decode([label for label in example.labels if label != IGNORED]))

    assert "get_weather" in learned(ROWS["answer"])
    assert "Cold." in learned(ROWS["answer"])
    unlearned = learned(row({**ONE, "learned": False}, RESULT, ANSWER))
    assert "get_weather" not in unlearned
    assert "Cold." in unlearned
