"""Values in telemetry: typed as OpenTelemetry's JSON has them, JSON within texts, and attributes with dotted names."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from tasks.core.timestamps import ensure_utc
from tasks.ingest.times import iso_time

_SCALARS = ("stringValue", "boolValue", "intValue", "doubleValue", "bytesValue")
OWN = ""
"""Under this key stands the value of a name that other names continue."""


def plain(value: Any) -> Any:
    """A value of OpenTelemetry's JSON (``{"stringValue": "a"}``) without its type."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return value
    (kind, inner), *_ = value.items()
    kind = _camel(kind)
    if kind in _SCALARS:
        return int(inner) if kind == "intValue" and isinstance(inner, str) and inner.lstrip("-").isdigit() else inner
    if kind == "arrayValue" and isinstance(inner, Mapping):
        return [plain(item) for item in inner.get("values") or ()]
    if kind == "kvlistValue" and isinstance(inner, Mapping):
        return {str(item.get("key")): plain(item.get("value")) for item in inner.get("values") or ()}
    return value


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(map(str.title, rest))


def attributes_of(given: Any) -> dict[str, Any]:
    """Attributes as a tree: of a list of keys and values, of an object, or of either as JSON."""
    given = decoded(given)
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = {str(item["key"]): plain(item.get("value")) for item in given if isinstance(item, Mapping) and "key" in item}
    return nested(given) if isinstance(given, Mapping) else {}


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names as a tree; names that are numbers make a list: ``a.0.b`` is ``{"a": [{"b": ...}]}``."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        place = tree
        *path, last = str(name).split(".")
        for part in path:
            if not isinstance(inner := place.setdefault(part, {}), dict):
                inner = place[part] = {OWN: inner}
            place = inner
        inner = _nested_within(value)
        if isinstance(before := place.get(last), dict):
            before.update(inner if isinstance(inner, dict) else {OWN: inner})
        else:
            place[last] = inner
    return {name: _with_lists(value) for name, value in tree.items()}


def _nested_within(value: Any) -> Any:
    if isinstance(value, list):
        return [_nested_within(item) for item in value]
    return nested(value) if isinstance(value, Mapping) else value


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    names = [name for name in value if name != OWN]
    if names and all(name.isdecimal() for name in names):
        return [_with_lists(value[name]) for name in sorted(names, key=int)]
    return {name: _with_lists(inner) for name, inner in value.items()}


def decoded(value: Any) -> Any:
    """What a text holds as JSON, or as Python writes the same, where it is an object, a list or a text; else the value."""
    if not isinstance(value, str) or value[:1] not in ("{", "[", '"'):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    if not re.match(r"[{\[]{1,2} *'", value):
        return value
    try:  # a table of objects that was written as CSV
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return value


def find(tree: Any, path: str) -> Any:
    """The value under a dotted path of a tree, or None."""
    for name in path.split("."):
        if not isinstance(tree, Mapping) or name not in tree:
            return None
        tree = tree[name]
    return tree[OWN] if isinstance(tree, Mapping) and set(tree) == {OWN} else tree


def first(tree: Any, paths: Iterable[str]) -> Any:
    """The first value that is there and not empty."""
    return next((value for path in paths if (value := find(tree, path)) not in (None, "", [], {})), None)


def time_text(value: Any) -> str | None:
    """A time as ISO 8601; as it stands where it is in no known form, for the fault to name it."""
    try:
        return iso_time(value)
    except ValueError:
        return str(value)


def milliseconds_between(start: Any, end: Any) -> float | None:
    """Milliseconds from one time to the other; None where one is missing or unreadable."""
    texts = [time_text(value) for value in (start, end)]
    try:
        moments = [ensure_utc(datetime.fromisoformat(text)) for text in texts if text]
    except ValueError:
        return None
    return round((moments[1] - moments[0]).total_seconds() * 1_000, 3) if len(moments) == 2 else None


def text_of(value: Any) -> str | None:
    """A scalar as text; None for anything else."""
    return None if value is None or isinstance(value, Mapping | list) else str(value)
