"""Tool calls as canonical rows hold them: calls with JSON arguments, results, and what a tool accepts.

Every stage that reads or replaces the texts of a row goes through this module, so that a value inside a call's arguments
is searched like any other text, while names, keys and types stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

TOOLS_ROLE = "tools"
"""The role of the message, without text, that states at the start of a prompt which tools may be called."""
OPTIONAL_KEYS = ("tool_calls", "tool_call_id", "learned")
"""Keys that a message has only where they say something; ``learned`` is false for a reply that is not to be learned."""
_STRUCTURE = frozenset({"type", "name", "required", "format", "pattern", "$ref", "$schema", "$id", "$anchor"})
"""Keywords of a tool's schema whose values are names, not texts."""
_PLAIN_KEY = re.compile(r"[A-Za-z_$][\w$ -]{0,63}")
_MIN_DIGITS = 5
"""A number with fewer digits is an amount; with more it may be that of a person, a card or an account."""
_MAX_KEY_DIGITS = 5

Replace = Callable[[str, str], str]


def loads(text: str) -> Any:
    """The value of JSON by RFC 8259, without NaN.

    Raises:
        ValueError: It is none.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps(value: Any) -> str:
    """JSON with other scripts as they are."""
    return json.dumps(value, ensure_ascii=False)


def calls_text(calls: Sequence[Mapping[str, Any]]) -> str:
    """Calls as text that no chat template changes: a JSON object in `<tool_call>` tags for each."""
    return "\n".join(
        f'<tool_call>\n{{"name": {dumps(call["name"])}, "arguments": {call["arguments"]}}}\n</tool_call>' for call in calls
    )


def message_text(message: Mapping[str, Any]) -> str:
    """All that a message says: its content, then its calls."""
    parts = (str(message["content"] or ""), calls_text(message.get("tool_calls") or ()))
    return "\n".join(part for part in parts if part)


def tools_message(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The message that states a row's tools, or none."""
    tools = row.get("tools")
    return [{"role": TOOLS_ROLE, "content": "", "tools": list(tools)}] if tools else []


def tools_in(messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tools that a prompt states."""
    return next((list(message["tools"]) for message in messages if message["role"] == TOOLS_ROLE), [])


def message_texts(path: str, message: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Path and text of a message's content and of each value in its calls; the values of a result that is JSON."""
    yield from _texts(f"{path}.content", message["content"], message["role"] == "tool")
    for number, call in enumerate(message.get("tool_calls") or ()):
        yield from json_texts(f"{path}.tool_calls.{number}", loads(call["arguments"]))


def replace_message_texts(path: str, message: Mapping[str, Any], replace: Replace) -> dict[str, Any]:
    """A copy of a message with each text of :func:`message_texts` replaced; JSON stays JSON with the same keys and types."""
    changed = {name: value for name, value in message.items() if value is not None or name not in OPTIONAL_KEYS}
    changed["content"] = _replaced(f"{path}.content", message["content"], message["role"] == "tool", replace)
    if message.get("tool_calls"):
        changed["tool_calls"] = [
            {**call, "arguments": _replaced_json(f"{path}.tool_calls.{number}", call["arguments"], replace)}
            for number, call in enumerate(message["tool_calls"])
        ]
    return changed


def iter_names(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Path and text of the names that are no free text: those of tools, of parameters, and the keys of arguments."""
    for number, tool in enumerate(row.get("tools") or ()):
        function = loads(tool)["function"]
        yield f"tools.{number}.function.name", function["name"]
        yield from _keys(f"tools.{number}.function.parameters", function.get("parameters"))
    for part in ("messages", "prompt", "chosen", "rejected"):
        for place, message in enumerate(row.get(part) or ()):
            for number, call in enumerate(message.get("tool_calls") or ()):
                path = f"{part}.{place}.tool_calls.{number}"
                yield f"{path}.name", call["name"]
                yield from _keys(path, loads(call["arguments"]))


def keys_of(path: str) -> list[str]:
    """The names of the keys in the path of a JSON value, outermost first; none for a field that is plain text."""
    parts = path.split(".")
    if parts[0] == "tools" or len(parts) < 4:
        return []
    inside = parts[4:] if parts[2] == "tool_calls" else parts[3:]
    return [part for part in inside if not part.isdigit() and not part.startswith("#") and part != "value"]


def tool_texts(path: str, tool: str) -> Iterator[tuple[str, str]]:
    """Path and text of each description, default and example of a tool; its names and types are no texts."""
    yield from json_texts(path, loads(tool), _STRUCTURE)


def replace_tool_texts(path: str, tool: str, replace: Replace) -> str:
    """A tool with each text of :func:`tool_texts` replaced."""
    return _replaced_json(path, tool, replace, _STRUCTURE)


def json_texts(path: str, value: Any, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Path and text of each value in JSON: strings, long numbers, and keys that are no names.

    A string that is itself a JSON object or array is read as one. A key that may be data, such as an address, is a text, and
    its place in the object stands for it in the path.

    Args:
        path: Of the value.
        value: JSON as Python values.
        skip: Keys whose strings are left out.
    """
    if isinstance(value, str):
        yield from _texts(path, value, True, skip)
    elif _is_long_number(value):
        yield path, str(value)
    elif isinstance(value, Mapping):
        for place, (key, item) in enumerate(value.items()):
            inner = _path(path, place, key)
            if not _is_name(key):
                yield inner, key
                inner = f"{inner}.value"
            if not (key in skip and _are_strings(item)):
                yield from json_texts(inner, item, skip)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from json_texts(f"{path}.{place}", item, skip)


def _replaced_value(path: str, value: Any, replace: Replace, skip: frozenset[str]) -> Any:
    if isinstance(value, str):
        return _replaced(path, value, True, replace, skip)
    if _is_long_number(value):
        return _number_like(value, replace(path, str(value)))
    if isinstance(value, Mapping):
        changed = {}
        for place, (key, item) in enumerate(value.items()):
            inner, new_key = _path(path, place, key), key
            if not _is_name(key):
                new_key = replace(inner, key)
                inner = f"{inner}.value"
            while new_key in changed:  # Two keys with the same replacement stay two.
                new_key += "'"
            changed[new_key] = item if key in skip and _are_strings(item) else _replaced_value(inner, item, replace, skip)
        return changed
    if isinstance(value, list):
        return [_replaced_value(f"{path}.{place}", item, replace, skip) for place, item in enumerate(value)]
    return value


def _keys(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for place, (key, item) in enumerate(value.items()):
            inner = _path(path, place, key)
            if _is_name(key):
                yield inner, key
            yield from _keys(inner, item)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from _keys(f"{path}.{place}", item)


def _texts(path: str, text: Any, may_be_json: bool, skip: frozenset[str] = frozenset()) -> Iterator[tuple[str, Any]]:
    value = _container(text) if may_be_json else None
    if value is None:
        yield path, text
    else:
        yield from json_texts(path, value, skip)


def _replaced(path: str, text: Any, may_be_json: bool, replace: Replace, skip: frozenset[str] = frozenset()) -> Any:
    if may_be_json and _container(text) is not None:
        return _replaced_json(path, text, replace, skip)
    return replace(path, text)


def _replaced_json(path: str, text: str, replace: Replace, skip: frozenset[str] = frozenset()) -> str:
    """The same text where no value changes, else new JSON."""
    value = loads(text)
    changed = _replaced_value(path, value, replace, skip)
    return text if changed == value else dumps(changed)


def _container(text: Any) -> Any:
    """The object or array that a text is, or None."""
    if not isinstance(text, str) or text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return loads(text) or None
    except ValueError:
        return None


def _number_like(old: float, text: str) -> float:
    """A replaced number: the new one where the replacement is a number of the same type, else 0."""
    try:
        return old if text == str(old) else type(old)(text)
    except ValueError:
        return type(old)(0)


def _path(path: str, place: int, key: str) -> str:
    return f"{path}.{key if _is_name(key) else f'#{place}'}"


def _is_name(key: str) -> bool:
    return _PLAIN_KEY.fullmatch(key) is not None and key.isascii() and sum(map(str.isdigit, key)) <= _MAX_KEY_DIGITS


def _is_long_number(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and sum(map(str.isdigit, str(value))) >= _MIN_DIGITS


def _are_strings(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")
