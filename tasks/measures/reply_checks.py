"""Rule-based checks of one reply: metrics of the benchmark, and rewards for training."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Annotated, Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import validator_for
from pydantic import AfterValidator
from referencing import Registry

from tasks.core.tool_calls import loads

_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_\-]+(?=[^\W_])")
"""Between the words of a name; a hyphen before a name is a sign."""
_WHOLE_NUMBER = re.compile(r"^([+-]?\d+)\.0+$")
_AFTER_A_NAME = ".!?,;:\u3002\uff0e\uff01\uff1f\u061f\u06d4\u0964\u17d4 "
_AROUND_A_NAME = "\"'`*_[](){}\u2018\u2019\u201c\u201d\u201e\u00ab\u00bb\u300c\u300d\u300e\u300f "
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u2060\u2066\u2067\u2068\u2069\ufeff"))
"""Optional breaks, which Khmer and Thai are written with or without, marks of direction, and the byte-order mark."""


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression, at its character {error.pos}") from None
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


def _is_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        validator_for(schema).check_schema(schema)
    except SchemaError as error:
        keyword = "/".join(str(part) for part in error.absolute_schema_path)
        raise ValueError(f"not a JSON schema: it breaks the rule {keyword} of its dialect") from None
    if any(not ref.startswith("#") for ref in _references(schema)):
        raise ValueError("a `$ref` leads elsewhere; only references within the schema (`#/$defs/...`) are followed")
    return schema


def _references(part: Any) -> list[str]:
    """Every ``$ref`` in a schema."""
    if isinstance(part, list | tuple):
        return [ref for item in part for ref in _references(item)]
    if not isinstance(part, Mapping):
        return []
    own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
    return own + [ref for item in part.values() for ref in _references(item)]


JsonSchema = Annotated[dict[str, Any], AfterValidator(_is_schema)]


def exact_match(reply: str, reference: str) -> float:
    """1 when both say the same but for case, width, white space and characters that show nothing, else 0."""
    return float(_normalised(reply) == _normalised(reference))


def format_valid(reply: str, pattern: str) -> float:
    """1 when the whole reply matches the pattern, else 0."""
    return float(re.fullmatch(pattern, reply, re.DOTALL) is not None)


def json_valid(reply: str, schema: Mapping[str, Any]) -> float:
    """1 when the whole reply is JSON (RFC 8259: no NaN) that satisfies the schema, else 0."""
    try:
        value = loads(reply)
    except ValueError:  # that it is no JSON is the finding
        return 0.0
    return float(validator_of(schema).is_valid(value))


def validator_of(schema: Mapping[str, Any]) -> Any:
    """What checks values against a JSON schema; its registry is empty, so that no reference is fetched from the network."""
    return validator_for(schema)(schema, registry=Registry())


def named_label(reply: str, labels: Collection[str], pattern: str | None) -> str | None:
    """The label that a reply names, or None when it names none of ``labels``, or more than one of them equally well.

    A label as it is written counts first. Then case, width and space do not matter, then ``card_arrival`` is
    ``Card arrival`` and ``1.0`` is ``1``; but never where two labels become one: among ``-1``, ``0`` and ``1`` the sign
    counts, among ``us`` and ``US`` the case.

    Args:
        reply: The reply.
        labels: The labels that exist.
        pattern: Finds the label's name in the reply (first group, or the whole match); None: its first line is the name.
    """
    if pattern is None:
        name = reply.strip().split("\n", 1)[0]
    else:
        match = re.search(pattern, reply)
        if match is None:
            return None
        name = (match.group(1) if match.re.groups else match.group(0)) or ""
    name = name.strip()
    bare = name.strip(_AROUND_A_NAME).rstrip(_AFTER_A_NAME).strip(_AROUND_A_NAME)
    for spelling in (name, name.rstrip(_AFTER_A_NAME), bare):
        if spelling in labels:
            return spelling
    for key in (_normalised, _label_key):
        for spelling in (name, bare):
            named = [label for label in labels if key(label) == key(spelling)]
            if named:
                return named[0] if len(named) == 1 else None
    return None


@lru_cache(maxsize=16_384)
def _label_key(name: str) -> str:
    """What two spellings of a label share, such as ``Card arrival`` and ``card_arrival``, but not ``-1`` and ``1``."""
    return _WHOLE_NUMBER.sub(r"\1", _SEPARATORS.sub(" ", _normalised(name).replace("\u2212", "-")))


@lru_cache(maxsize=16_384)
def _normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold().split())
