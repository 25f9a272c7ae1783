"""Whether a chat template writes tools, calls and results, and one that does for base models whose own does not."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from jinja2.exceptions import TemplateError

from tasks.core.tool_calls import TOOLS_ROLE, dumps, json_texts, loads, tools_in
from tasks.modeling.templates import render_template

Message = Mapping[str, Any]
TemplateFault = Literal["template_refuses", "template_has_no_tools", "template_loses_call"]

HERMES_TEMPLATE = (
    "{%- set first = messages[0]['content'] if messages and messages[0]['role'] == 'system' else '' -%}\n"
    "{%- if tools -%}\n"
    "{{- '<|im_start|>system\\n' + (first + '\\n\\n' if first else '') + '# Tools\\n\\nYou may call one or more functions. "
    "Their signatures stand within <tools></tools> tags:\\n<tools>' -}}\n"
    "{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}\n"
    "{{- '\\n</tools>\\n\\nWrite each call as a JSON object with name and arguments within <tool_call></tool_call> tags.' "
    "+ '<|im_end|>\\n' -}}\n"
    "{%- elif first -%}{{- '<|im_start|>system\\n' + first + '<|im_end|>\\n' -}}{%- endif -%}\n"
    "{%- for message in messages -%}\n"
    "{%- if message['role'] == 'tool' -%}\n"
    "{%- if loop.first or messages[loop.index0 - 1]['role'] != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}\n"
    "{{- '\\n<tool_response>\\n' + message['content'] + '\\n</tool_response>' -}}\n"
    "{%- if loop.last or messages[loop.index0 + 1]['role'] != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}\n"
    "{%- elif not (loop.first and message['role'] == 'system') -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] -}}\n"
    "{%- for call in message['tool_calls'] or [] -%}\n"
    "{{- '' if loop.first and not message['content'] else '\\n' -}}\n"
    "{{- '<tool_call>\\n{\"name\": \"' + call['function']['name'] + '\", \"arguments\": ' -}}\n"
    "{{- (call['function']['arguments'] | tojson) + '}\\n</tool_call>' -}}\n"
    "{%- endfor -%}\n"
    "{{- '<|im_end|>\\n' -}}\n"
    "{%- endif -%}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""ChatML with tools in the form of Hermes and Qwen2.5, which serving frameworks read as `hermes`."""

_PROBE_TOOL = dumps(
    {
        "type": "function",
        "function": {
            "name": "toolqx7",
            "description": "DescriptionQx7",
            "parameters": {"type": "object", "properties": {"keyqx7": {"type": "string", "description": "x"}}},
        },
    }
)
_PROBE: list[dict[str, Any]] = [
    {"role": TOOLS_ROLE, "content": "", "tools": [_PROBE_TOOL]},
    {"role": "user", "content": "QuestionQx7"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00000", "name": "toolqx7", "arguments": dumps({"keyqx7": "ValueQx7"})}],
    },
    {"role": "tool", "content": "ResultQx7", "tool_call_id": "call00000"},
    {"role": "assistant", "content": "ReplyQx7"},
]


def for_template(messages: Sequence[Message]) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools in the form that chat templates expect: calls with arguments as objects, results with a name."""
    tools = tools_in(messages)
    names: dict[str, str] = {}
    turns = []
    for message in messages:
        if message["role"] == TOOLS_ROLE:
            continue
        turn = {"role": message["role"], "content": message["content"]}
        if message.get("tool_calls"):
            turn["tool_calls"] = [_call(call) for call in message["tool_calls"]]
            names |= {call["id"]: call["name"] for call in message["tool_calls"]}
        if given := message.get("tool_call_id"):
            turn |= {"tool_call_id": given, "name": names.get(given, "")}
        turns.append(turn)
    return turns, [loads(tool) for tool in tools] if tools else None


def template_fault(template: str, messages: Sequence[Message]) -> TemplateFault | None:
    """Why a template cannot write a conversation as it is, or None.

    ``template_refuses``: it raises, mostly for an order of roles. ``template_has_no_tools``: it leaves out tools, calls or
    results, in any conversation. ``template_loses_call``: it leaves out a part of this one, such as text beside a call, or
    writes the last turn, a call, not behind the start that generation gets.
    """
    with_tools = uses_tools(messages)
    if with_tools and not knows_tools(template):
        return "template_has_no_tools"
    try:
        prompt = _written(template, messages[:-1], add_generation_prompt=True)
        whole = _written(template, messages)
    except TemplateError:
        return "template_refuses"
    if not with_tools:
        return None
    is_behind = not messages[-1].get("tool_calls") or whole.startswith(prompt.rstrip(" "))
    return None if is_behind and _holds_all(whole, messages) else "template_loses_call"


def uses_tools(messages: Sequence[Message]) -> bool:
    """Whether a conversation states tools, or has calls or results."""
    return any(message["role"] in (TOOLS_ROLE, "tool") or message.get("tool_calls") for message in messages)


@functools.lru_cache(maxsize=64)
def knows_tools(template: str) -> bool:
    """Whether a template writes tools, calls and results."""
    try:
        text = _written(template, _PROBE)
        return "DescriptionQx7" in text and _holds_all(text, _PROBE)
    except TemplateError:
        return False


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": loads(call["arguments"])}
    return {"type": "function", "id": call["id"], "function": function}


def _written(template: str, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str:
    turns, tools = for_template(messages)
    return render_template(template, turns, tools=tools, add_generation_prompt=add_generation_prompt)


def _holds_all(text: str, messages: Sequence[Message]) -> bool:
    """Whether every call, every result, and the text of every turn with calls stands in what a template wrote."""
    for message in messages:
        calls = message.get("tool_calls") or ()
        parts = [message["content"]] if calls or message["role"] == "tool" else []
        for call in calls:
            parts += [call["name"], *(value for _, value in json_texts("", loads(call["arguments"])))]
        for tool in message.get("tools") or ():
            parts.append(loads(tool)["function"]["name"])
        if not all(part.strip() in text or dumps(part)[1:-1].strip() in text for part in parts):
            return False
    return True
