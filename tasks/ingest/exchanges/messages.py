"""Messages in the forms of telemetry, SDKs and frameworks, as messages that :mod:`tasks.ingest.chats` reads.

Forms that it reads already, such as Anthropic's parts, stay as they are. What is neither text nor a call stays too: the
reader of chats then names it as a fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tasks.ingest.exchanges.values import decoded, find, first

Message = dict[str, Any]

_LANGCHAIN = {"human": "user", "ai": "assistant", "AIMessageChunk": "assistant"}
_LANGCHAIN_CLASSES = {
    "HumanMessage": "user",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
}
_TEXT_KEYS = ("question", "query", "prompt", "text", "input", "inputs", "user_input", "user_query")
_REPLY_KEYS = ("output_text", "answer", "response", "text", "output", "outputs", "completion", "result", "generated_text")
_MESSAGE_KEYS = {"role", "content", "parts", "message", "kwargs", "tool_calls", "text", "message.role"}
"""A text whose JSON is no list of objects with one of these is a text."""
_UNLEARNED_PARTS = ("reasoning", "thinking", "redacted_thinking")


def messages_of(value: Any, role: str) -> list[Message]:
    """The messages in a value: a list of them or one, a text (of ``role``), or either as JSON."""
    given, value = value, decoded(value)
    if isinstance(value, Mapping):
        value = [value]
    items = [decoded(item) for item in value] if isinstance(value, Sequence) and not isinstance(value, str) else []
    if isinstance(given, str) and not all(
        isinstance(item, Mapping) and _MESSAGE_KEYS & item.keys() for item in items or [0]
    ):
        return [{"role": role, "content": value if isinstance(value, str) else given}] if given.strip() else []
    return [message for item in items for message in _messages(item, role)]


def prompt_of(request: Any) -> list[Message]:
    """The messages that a request sends: of OpenAI's, Anthropic's or Google's APIs, a framework's inputs, or a text."""
    given, request = request, decoded(request)
    if not isinstance(request, Mapping):
        return messages_of(given, "user")
    found = _prompt_of_object(request)
    return found if found or not isinstance(given, str) else [{"role": "user", "content": given}]


def _prompt_of_object(request: Mapping[str, Any]) -> list[Message]:
    if isinstance(decoded(request.get("body")), Mapping):
        return prompt_of(request["body"])
    system = first(
        request, ("system", "instructions", "systemInstruction", "system_instruction", "config.system_instruction")
    )
    before = messages_of(system, "system")
    for name in ("messages", "input_messages", "contents", "chat_history"):
        if request.get(name):
            given = decoded(request[name])
            nested_once = isinstance(given, list) and len(given) == 1 and isinstance(given[0], list)
            return before + messages_of(given[0] if nested_once else given, "user")
    text = next((request[name] for name in _TEXT_KEYS if request.get(name)), None)
    if isinstance(decoded(text), Mapping):
        return before + prompt_of(text)
    return before + messages_of(text, "user")


def tools_of(request: Any) -> Any:
    """What a request lets the model call."""
    request = decoded(request)
    if isinstance(request, Mapping) and isinstance(decoded(request.get("body")), Mapping):
        return tools_of(request["body"])
    tools = first(request, ("tools", "invocation_params.tools", "functions"))
    return [_tool(tool) for tool in tools] if isinstance(tools, list) else None


def reply_of(response: Any) -> list[Message]:
    """The messages that a response brings; none where there is no text or call in it."""
    response = decoded(response)
    if isinstance(response, str):
        return messages_of(response, "assistant")
    if isinstance(response, Sequence):
        return _last_reply(messages_of(response, "assistant"))
    if not isinstance(response, Mapping):
        return []
    if isinstance(decoded(response.get("body")), Mapping):
        return reply_of(response["body"])
    choice = _item(response.get("choices"))
    if choice:
        return messages_of(choice.get("message") or choice.get("text") or "", "assistant")
    candidate = _item(response.get("candidates"))
    if candidate:
        return messages_of(candidate.get("content"), "assistant")
    generation = response.get("generations")
    while isinstance(generation, list) and generation:
        generation = generation[0]
    if isinstance(generation, Mapping):
        return messages_of(generation.get("message") or generation.get("text"), "assistant")
    for name in ("message", "messages", "output", "content"):
        if isinstance(response.get(name), list | Mapping) and response[name]:
            value = response if name == "content" else response[name]
            return _last_reply(messages_of(value, "assistant"))
    return messages_of(
        next((response[name] for name in _REPLY_KEYS if response.get(name)), response.get("content")), "assistant"
    )


def _item(value: Any) -> Mapping[str, Any]:
    item = value[0] if isinstance(value, list) and value else None
    return item if isinstance(item, Mapping) else {}


def _last_reply(messages: list[Message]) -> list[Message]:
    """A response that repeats the conversation gives its end: what follows the last message of another role."""
    others = [place for place, message in enumerate(messages) if message.get("role") not in ("assistant", None)]
    return messages[others[-1] + 1 :] if others else messages


def _messages(item: Any, role: str) -> Iterator[Message]:
    if isinstance(item, str):
        yield {"role": role, "content": item}
        return
    if not isinstance(item, Mapping):
        return
    for wrapper in ("message", "kwargs"):  # OpenInference's list items, and LangChain's objects
        if isinstance(item.get(wrapper), Mapping):
            classes = item.get("id")
            named = _LANGCHAIN_CLASSES.get(classes[-1]) if isinstance(classes, list) and classes else None
            yield from _messages({**({"role": named} if named else {}), **item[wrapper]}, role)
            return
    if item.get("type") in ("function_call", "function_call_output"):
        yield _of_response_item(item)
        return
    if item.get("type") in _UNLEARNED_PARTS:
        return
    kind = item.get("type")
    given = item.get("role") or (_LANGCHAIN.get(str(kind), str(kind)) if kind in (*_LANGCHAIN, "system", "tool") else role)
    yield from _with_parts(item, "assistant" if given == "model" else str(given))


def _of_response_item(item: Mapping[str, Any]) -> Message:
    """A call, or its result, as an item of OpenAI's Responses API."""
    if item["type"] == "function_call_output":
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": _text(item.get("output"))}
    return {"role": "assistant", "content": None, "tool_calls": [_call(item, item.get("call_id") or item.get("id"))]}


def _with_parts(item: Mapping[str, Any], role: str) -> Iterator[Message]:
    """A message whose parts are texts, calls and results; results become messages of their own."""
    parts = next((item[name] for name in ("parts", "contents", "content") if isinstance(item.get(name), list)), None)
    calls = [_call(call.get("tool_call", call)) for call in item.get("tool_calls") or () if isinstance(call, Mapping)]
    name = {"tool_call_id": item.get("tool_call_id") or item.get("id")} if role == "tool" else {}
    if parts is None:
        content = item.get("content", item.get("text"))
        yield {"role": role, "content": content, **name, **({"tool_calls": calls} if calls else {})}
        return
    texts: list[Any] = []
    for given in parts:
        part = given.get("message_content", given) if isinstance(given, Mapping) else {"type": "text", "text": given}
        kind = part.get("type")
        if kind == "tool_call" or "functionCall" in part or "function_call" in part:
            calls.append(_call(part.get("functionCall") or part.get("function_call") or part, part.get("id")))
        elif kind == "tool_call_response" or "functionResponse" in part or "function_response" in part:
            inner = part.get("functionResponse") or part.get("function_response") or part
            content = _text(next((inner[key] for key in ("response", "result", "content") if key in inner), ""))
            yield {"role": "tool", "tool_call_id": part.get("id") or inner.get("name"), "content": content}
        elif kind not in _UNLEARNED_PARTS:
            texts.append(_part(part))
    if texts or calls:
        whole = all(isinstance(text, str) for text in texts)
        content = "\n".join(texts) if whole else [{"type": "text", "text": t} if isinstance(t, str) else t for t in texts]
        yield {"role": role, "content": content or None, **name, **({"tool_calls": calls} if calls else {})}


def _part(part: Mapping[str, Any]) -> Any:
    """A part's text, or the part itself where it is none."""
    if part.get("type") in (None, "text", "input_text", "output_text", "refusal"):
        text = next((part[name] for name in ("text", "content", "refusal") if isinstance(part.get(name), str)), None)
        if text is not None:
            return text
    return dict(part)


def _call(call: Mapping[str, Any], name_of_call: Any = None) -> Message:
    """A call in OpenAI's form, from ``{function: {name, arguments}}`` or ``{name, arguments | args | input}``."""
    function = call.get("function") if isinstance(call.get("function"), Mapping) else call
    assert isinstance(function, Mapping)
    arguments = next((function[key] for key in ("arguments", "args", "input") if key in function), "{}")
    return {
        "id": call.get("id") or name_of_call or function.get("name"),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": _text(arguments)},
    }


def _tool(tool: Any) -> Any:
    """A tool in OpenAI's form; one of OpenInference's is JSON under ``tool.json_schema``."""
    schema = decoded(find(tool, "tool.json_schema"))
    tool = schema if isinstance(schema, Mapping) else decoded(tool)
    if isinstance(tool, Mapping) and "function" not in tool and "name" in tool:
        parameters = next((tool[key] for key in ("parameters", "input_schema") if key in tool), {"type": "object"})
        described = {"description": tool["description"]} if tool.get("description") else {}
        return {"type": "function", "function": {"name": tool["name"], **described, "parameters": parameters}}
    return tool


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
