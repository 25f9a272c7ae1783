"""What stands in the text where personal data stood."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable

from tasks.pii.entities import ENTITIES
from tasks.pii.policy import Policy
from tasks.pii.surrogates import surrogate

PLACEHOLDER = re.compile(rf"<(?:{'|'.join(sorted(ENTITIES))})(?::[0-9a-f]{{12}})?>")
"""What the scrubber itself writes; never scrubbed again, so that scrubbing twice equals scrubbing once. Only the entities'
own names count: ``<MARIA_KELLER>`` is somebody's name in brackets."""


def replace_value(entity: str, value: str, policy: Policy, *, intermediate: bool = False) -> str:
    """The replacement of one value under the policy's operator for its entity; depends on nothing else.

    Args:
        entity: What the value is.
        value: The value.
        policy: The frozen rules.
        intermediate: Whether the result is only read again by the detectors, which would take a surrogate for a value.
    """
    operator = policy.operator_for(entity)
    if intermediate and operator == "surrogate":
        operator = "placeholder"
    return _OPERATORS[operator](entity, value, policy)


def _placeholder(entity: str, value: str, policy: Policy) -> str:
    return f"<{entity}>"


def _redact(entity: str, value: str, policy: Policy) -> str:
    return ""


def _mask(entity: str, value: str, policy: Policy) -> str:
    return "".join(character if character.isspace() else "*" for character in value)


def _hash(entity: str, value: str, policy: Policy) -> str:
    folded = " ".join(value.casefold().split())
    digest = hmac.new(policy.key or b"", f"hash\0{entity}\0{folded}".encode(), hashlib.sha256).hexdigest()
    return f"<{entity}:{digest[:12]}>"


def _surrogate(entity: str, value: str, policy: Policy) -> str:
    made = surrogate(entity, value, policy.key or b"")
    return _placeholder(entity, value, policy) if made is None else made


_OPERATORS: dict[str, Callable[[str, str, Policy], str]] = {
    "placeholder": _placeholder,
    "redact": _redact,
    "mask": _mask,
    "hash": _hash,
    "surrogate": _surrogate,
}
