"""Reads what may be called, in the forms that people have, into OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for

from tasks.core.tool_calls import dumps, loads
from tasks.ingest.faults import RowFaultError

_PYTHON_TYPES = {
    **{"dict": "object", "str": "string", "int": "integer", "float": "number", "double": "number", "bool": "boolean"},
    **{"list": "array", "tuple": "array", "set": "array", "none": "null", "any": ""},
}
_NAMED = ("properties", "patternProperties", "$defs", "definitions")
_OBJECT_KEYWORDS = {"type", "properties", "required", "anyOf", "oneOf", "allOf", "$ref", "$defs", "additionalProperties"}
_VALUES = ("default", "const", "enum", "examples")
"""Keywords under which null is a value, not the absence of one."""


def read_tools(value: Any, field: str) -> list[str]:
    """Tools as JSON texts, in OpenAI's form; none for None and for an empty list.

    Known are OpenAI's tools and functions, bare schemas with a name, Anthropic's ``input_schema``, Python's names of types,
    parameters without the object around them, and the JSON of all these.

    Args:
        value: As a record holds it.
        field: Where.

    Raises:
        RowFaultError: It is none of these, or a tool's parameters are no JSON schema.
    """
    if isinstance(value, str):
        value = _loaded(value, field) if value.strip() else None
    if value is None:
        return []
    items = value if isinstance(value, list | tuple) else [value]
    tools = [_tool(item, f"{field}.{index}") for index, item in enumerate(items)]
    names = [tool["function"]["name"] for tool in tools]
    if len(set(names)) < len(names) and len({dumps(tool) for tool in tools}) > len(set(names)):
        raise RowFaultError("tools_of_one_name", field)
    return list(dict.fromkeys(map(dumps, tools)))


def without_unset(call: Mapping[str, Any], tools: Sequence[str]) -> str:
    """The arguments of a call without nulls that its schema does not know: Arrow fills columns of objects with them."""
    arguments = loads(call["arguments"])
    if None not in arguments.values():
        return str(call["arguments"])
    functions = (loads(tool)["function"] for tool in tools)
    schema = next((f.get("parameters") or {} for f in functions if f["name"] == call["name"]), None)
    if schema is None:
        return str(call["arguments"])
    known = schema.get("properties") or {}
    return dumps({key: value for key, value in arguments.items() if value is not None or _may_be_null(known.get(key))})


def _may_be_null(schema: Any) -> bool:
    if not isinstance(schema, Mapping):
        return False
    kind = schema.get("type")
    return kind is None or kind == "null" or (isinstance(kind, list) and "null" in kind)


def _tool(item: Any, field: str) -> dict[str, Any]:
    if isinstance(item, str):
        item = _loaded(item, field)
    inner = item.get("function") if isinstance(item, Mapping) and isinstance(item.get("function"), Mapping) else item
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"].strip():
        raise RowFaultError("malformed_tools", field)
    parameters: Any = next((inner[key] for key in ("parameters", "input_schema") if inner.get(key) is not None), {})
    try:
        parameters = _as_object(_set_only(loads(parameters if isinstance(parameters, str) else dumps(parameters))))
    except (TypeError, ValueError):
        raise RowFaultError("malformed_tools", f"{field}.parameters") from None
    if not isinstance(parameters, Mapping) or not _is_schema(dumps(parameters)):
        raise RowFaultError("malformed_tools", f"{field}.parameters")
    description = inner.get("description")
    if not isinstance(description, str | None):
        raise RowFaultError("malformed_tools", f"{field}.description")
    parameters = dict(parameters) or {"type": "object", "properties": {}}
    function = {"name": inner["name"].strip(), "description": description or "", "parameters": parameters}
    return {"type": "function", "function": function}


@lru_cache(maxsize=1024)
def _is_schema(text: str) -> bool:
    """Whether JSON is a JSON schema. It takes milliseconds, and the rows of a data set state the same few tools."""
    schema = loads(text)
    try:
        validator_for(schema).check_schema(schema)
    except (SchemaError, TypeError, ValueError, AttributeError):
        return False
    return True


def _set_only(value: Any) -> Any:
    """JSON without keys that hold null, which Arrow puts where another tool has a value."""
    if isinstance(value, Mapping):
        return {
            key: item if key in _VALUES else _set_only(item)
            for key, item in value.items()
            if item is not None or key in _VALUES[:2]
        }
    return [_set_only(item) for item in value] if isinstance(value, list | tuple) else value


def _as_object(schema: Any) -> Any:
    """A schema in the words of JSON Schema: Python's types by their names there, bare parameters inside an object."""
    if not isinstance(schema, Mapping):
        return schema
    is_bare = bool(schema) and not _OBJECT_KEYWORDS.intersection(schema)
    if is_bare and all(isinstance(item, Mapping) and ("type" in item or "description" in item) for item in schema.values()):
        schema = {"type": "object", "properties": schema}
    return _with_json_types(schema)


def _with_json_types(schema: Any, *, are_names: bool = False) -> Any:
    """A schema with JSON's names of types; ``are_names`` where its keys are names of parameters."""
    if isinstance(schema, list):
        return [_with_json_types(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    changed = {
        key: item if key in _VALUES and not are_names else _with_json_types(item, are_names=key in _NAMED and not are_names)
        for key, item in schema.items()
    }
    if not are_names and isinstance(kind := changed.get("type"), str):
        name = _PYTHON_TYPES.get(kind.split("[")[0].strip().lower(), kind)
        return {**changed, "type": name} if name else {key: item for key, item in changed.items() if key != "type"}
    return changed


def _loaded(text: str, field: str) -> Any:
    try:
        return loads(text)
    except ValueError:
        raise RowFaultError("malformed_tools", field) from None
