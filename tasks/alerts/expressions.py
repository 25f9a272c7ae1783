"""JMESPath over one alert of a request, with functions for what a path alone does not reach. Pure; no clock.

| function | returns |
|---|---|
| `label(value, 'model')` | a label, in any form: a mapping, `name:value` or `name=value` texts, lists of pairs |
| `capture(text, 'pattern')` | the first group of a regular expression, or the whole match |
| `json(text)`, `base64(text)` | the value of JSON inside a text, the text in base64 |
| `header('ce-type')`, `query('model')` | a header, a parameter of the address |
| `body()` | the whole body, from inside one of its alerts |
| `received()` | the time of receipt |
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import jmespath
from jmespath import functions
from jmespath.exceptions import JMESPathError
from pydantic_core import from_json

_MOST_CHARACTERS = 2_000
"""A regular expression looks at so much of a text: its time is bounded whatever arrives."""
_NAMES = ("name", "key", "label", "tag", "k")
_VALUES = ("value", "val", "v")
_TAG = re.compile(r"\s*([^:=\s][^:=]*?)\s*[:=]\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True)
class Received:
    """A request: its body as bytes, headers by their name in lower case, parameters of the address, and time of receipt."""

    body: bytes
    now: datetime
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


class _Functions(functions.Functions):  # type: ignore[misc]  # jmespath has no types
    """JMESPath's own functions, and those of this module."""

    def __init__(self, request: Received, document: Any) -> None:
        super().__init__()
        self._request = request
        self._document = document

    @functions.signature({"types": []}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_label(self, labels: Any, name: str) -> Any:
        return next((value for key, value in _pairs(labels) if key.casefold() == name.casefold() and value != ""), None)

    @functions.signature({"types": []}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_capture(self, text: Any, pattern: str) -> str | None:
        found = re.search(pattern, text[:_MOST_CHARACTERS]) if isinstance(text, str) else None
        return None if found is None else found[1] if found.re.groups else found[0]

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_json(self, text: Any) -> Any:
        try:
            return from_json(text) if isinstance(text, str) else None
        except ValueError:
            return None

    @functions.signature({"types": []})  # type: ignore[untyped-decorator]
    def _func_base64(self, text: Any) -> str | None:
        try:
            return base64.b64decode(text, validate=True).decode() if isinstance(text, str) else None
        except ValueError:
            return None

    @functions.signature({"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_header(self, name: str) -> str | None:
        return self._request.headers.get(name.lower())

    @functions.signature({"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_query(self, name: str) -> str | None:
        return self._request.query.get(name)

    @functions.signature()  # type: ignore[untyped-decorator]
    def _func_body(self) -> Any:
        return self._document

    @functions.signature()  # type: ignore[untyped-decorator]
    def _func_received(self) -> str:
        return self._request.now.isoformat()


class Evaluator:
    """Evaluates expressions about one request.

    Args:
        request: The request.
        document: Its parsed body.
    """

    def __init__(self, request: Received, document: Any) -> None:
        self._options = jmespath.Options(custom_functions=_Functions(request, document))

    def __call__(self, expression: str | None, value: Any) -> Any:
        """The result on a value; None where the expression does not fit it, and without an expression."""
        if expression is None:
            return None
        try:
            return jmespath.search(expression, value, options=self._options)
        except (JMESPathError, TypeError, AttributeError, ValueError, RecursionError):
            # A function on a value of another type: the alert has no such value.
            return None


def check_expression(expression: str) -> None:
    """Checks an expression's form, the names of its functions, and its regular expressions.

    Raises:
        ValueError: It is invalid; the message names the place.
    """
    try:
        tree = jmespath.compile(expression).parsed
    except JMESPathError as error:
        place = getattr(error, "lex_position", None)
        raise ValueError(f"no JMESPath expression{'' if place is None else f' (at character {place + 1})'}") from None
    for node in _nodes(tree):
        if node["type"] != "function_expression":
            continue
        if node["value"] not in _Functions.FUNCTION_TABLE:
            raise ValueError(f"no such function; there are {', '.join(sorted(_Functions.FUNCTION_TABLE))}")
        if node["value"] == "capture" and len(node["children"]) == 2 and node["children"][1]["type"] == "literal":
            try:
                re.compile(node["children"][1]["value"])
            except re.error as error:
                raise ValueError(f"capture has no regular expression ({error.msg})") from None


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for child in tree.get("children", ()):
            yield from _nodes(child)


def _pairs(labels: Any) -> Iterator[tuple[str, Any]]:
    """The labels in a value, as name and value, whatever their form."""
    if isinstance(labels, str):
        for part in labels.split(","):
            if found := _TAG.fullmatch(part):
                yield found[1], found[2]
    elif isinstance(labels, Mapping):
        lower = {key.lower(): value for key, value in labels.items()}
        named = next((lower[key] for key in _NAMES if isinstance(lower.get(key), str)), None)
        valued = next((lower[key] for key in _VALUES if key in lower), None)
        if named is not None and valued is not None:
            yield named, valued
        yield from labels.items()
    elif isinstance(labels, list):
        if len(labels) == 2 and isinstance(labels[0], str) and not _TAG.fullmatch(labels[0]):
            yield labels[0], labels[1]
        for part in labels:
            yield from _pairs(part)
