"""Reads the tool calls in a reply, and compares them with those that were expected."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tasks.core.tool_calls import loads
from tasks.measures.reply_checks import validator_of

_OF_CALLS = ("valid_call", "call_name", "argument_f1", "call_sequence")
_CALL_START = re.compile(r"[\[{]")
_FUNCTION_TAG = re.compile(r"<function=([^>\s]+)>(.*?)(?:</function>|$)", re.DOTALL)
_PARAMETER_TAG = re.compile(r"<parameter=([^>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
_ADDRESSED = re.compile(r"to=functions\.([\w.-]+)[^{]*$")
_MARKED = re.compile(r"\[TOOL_CALLS\]\s*([\w.-]+)(?:\[(?:CALL_ID|ARGS)\]\w*)*\s*$")
_NAME_KEYS, _ARGUMENT_KEYS = ("name", "tool_name"), ("arguments", "parameters", "input")


class Call(NamedTuple):
    """A call: the tool's name and its arguments."""

    name: str
    arguments: Mapping[str, Any]


def calls_of(message: Mapping[str, Any]) -> list[Call]:
    """The calls of a canonical message."""
    return [Call(call["name"], loads(call["arguments"])) for call in message.get("tool_calls") or ()]


def calls_in(text: str, names: Collection[str] = ()) -> list[Call]:
    """The calls in a reply's text, in order, in the forms that models write.

    These are JSON objects with a name and arguments or parameters, by themselves, in tags, in lists or code blocks (Hermes,
    Qwen, Llama, Mistral, Granite, Phi, Command R); arguments after the name (gpt-oss, Mistral since 2025); and Qwen3-Coder's
    tags.

    Args:
        text: A reply, with or without its special tokens.
        names: Of the tools that may be called; needed where a name stands before the arguments and no special token is left.
    """
    tagged = [Call(name, dict(_PARAMETER_TAG.findall(inside))) for name, inside in _FUNCTION_TAG.findall(text)]
    if tagged:
        return [Call(name, {key: _value(value) for key, value in given.items()}) for name, given in tagged]
    return list(_json_calls(text, names))


def schemas_of(tools: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The schema of each tool's arguments, by the tool's name."""
    functions = (loads(tool)["function"] for tool in tools)
    return {function["name"]: function.get("parameters") or {} for function in functions}


def is_valid_call(call: Call, schemas: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether the tool exists and its schema allows the arguments."""
    schema = schemas.get(call.name)
    return schema is not None and _validator(json.dumps(schema, sort_keys=True)).is_valid(dict(call.arguments))


def call_scores(reply: str, expected: Sequence[Call], tools: Sequence[str]) -> dict[str, float | None]:
    """The scores of a reply, each from 0 to 1; None where no call is expected, but for ``call_decision``.

    * ``call_decision``: the reply calls a tool where a call is expected, and calls none elsewhere. None without either.
    * ``valid_call``: the reply calls, and every call is valid. None where no tools are stated, or an expected call is itself
      not valid.
    * ``call_name``: the same tools are called, in any order.
    * ``argument_f1``: F1 of the pairs of name and value in the arguments of all calls, nested values at their places.
    * ``call_sequence``: the same calls with the same arguments in the same order.

    Args:
        reply: The reply's text.
        expected: The calls of the reference reply.
        tools: What may be called.
    """
    schemas = schemas_of(tools)
    found = calls_in(reply, schemas) if schemas or expected else []
    decision = float(bool(found) == bool(expected)) if schemas or expected else None
    if not expected:
        return {"call_decision": decision, **dict.fromkeys(_OF_CALLS)}
    measurable = bool(schemas) and all(is_valid_call(call, schemas) for call in expected)
    return {
        "call_decision": decision,
        "valid_call": float(bool(found) and all(is_valid_call(c, schemas) for c in found)) if measurable else None,
        "call_name": float(Counter(call.name for call in found) == Counter(call.name for call in expected)),
        "argument_f1": _f1(_pairs(found), _pairs(expected)),
        "call_sequence": float(list(map(_key, found)) == list(map(_key, expected))),
    }


def call_reward(reply: str, expected: Sequence[Call], tools: Sequence[str]) -> float:
    """One number from 0 to 1: the mean of :func:`call_scores`; 0 without tools and calls, where nothing is rewarded."""
    scores = [score for score in call_scores(reply, expected, tools).values() if score is not None]
    return sum(scores) / len(scores) if scores else 0.0


def _pairs(calls: Sequence[Call]) -> Counter[tuple[str, str, str]]:
    """The leaves of the arguments, each under its tool and its place; a call without arguments counts as one pair."""
    pairs: Counter[tuple[str, str, str]] = Counter()
    for call in calls:
        leaves = list(_leaves(call.arguments, "")) or [("", "")]
        pairs.update((call.name, path, value) for path, value in leaves)
    return pairs


def _leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and (value or path):
        for key, item in value.items():
            yield from _leaves(item, f"{path}/{key}")
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            yield from _leaves(item, f"{path}/{place}")
    elif path:
        yield path, _scalar(value)


def _scalar(value: Any) -> str:
    """A value for comparison: 1 and 1.0 are equal, surrounding space does not count."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return json.dumps(value.strip() if isinstance(value, str) else value, sort_keys=True, ensure_ascii=False)


def _key(call: Call) -> tuple[str, tuple[tuple[str, str], ...]]:
    return call.name, tuple(sorted(_leaves(call.arguments, "")))


def _f1(found: Counter[tuple[str, str, str]], expected: Counter[tuple[str, str, str]]) -> float:
    return 2 * (found & expected).total() / max(1, found.total() + expected.total())


def _json_calls(text: str, names: Collection[str]) -> Iterator[Call]:
    decoder, place, last = json.JSONDecoder(), 0, 0
    while match := _CALL_START.search(text, place):
        try:
            value, place = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            place = match.end()
            continue
        calls = list(_calls_from(value))
        if not calls and isinstance(value, dict) and (name := _name_before(text[last : match.start()], names)):
            calls = [Call(name, value)]
        yield from calls
        last = place


def _calls_from(value: Any) -> Iterator[Call]:
    for item in value if isinstance(value, list) else [value]:
        inner = item.get("function") if isinstance(item, dict) and isinstance(item.get("function"), dict) else item
        if not isinstance(inner, dict):
            continue
        name = next((inner[key] for key in _NAME_KEYS if isinstance(inner.get(key), str)), None)
        given = next((inner[key] for key in _ARGUMENT_KEYS if key in inner), None)
        arguments = _value(given) if isinstance(given, str) else given
        if name is not None and isinstance(arguments, dict):
            yield Call(name, arguments)


def _name_before(text: str, names: Collection[str]) -> str | None:
    """The name of the tool that stands before its arguments."""
    known = sorted(names, key=len, reverse=True)
    if found := next((name for name in known if f"functions.{name}" in text or text.rstrip().endswith(name)), None):
        return found
    match = _ADDRESSED.search(text) or _MARKED.search(text)
    return match[1] if match else None


def _value(text: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        return text


@functools.lru_cache(maxsize=1024)
def _validator(schema: str) -> Any:
    return validator_of(json.loads(schema))
