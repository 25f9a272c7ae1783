"""Instructions to the model where there should be a question: a few patterns on folded text.

English, and only the openings that attacks share: a reference to build on, no wall. What an attacker words freshly passes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_ANY = r"(?:previous|prior|above|earlier|all|your|any|the)"
_RULES = r"(?:instructions?|rules|prompts?|directions|guidelines|restrictions)"
_PROMPT = (
    r"(?:system prompt|system message|hidden (?:prompt|instructions)|your (?:initial |original |secret )?instructions"
    r"|everything above)"
)
_FREED = (
    r"(?:dan|jailbroken|unrestricted|uncensored|developer mode|no (?:rules|restrictions|filters)"
    r"|without (?:any )?(?:rules|restrictions|filters))"
)

BUILT_IN: Mapping[str, str] = {
    "ignore_instructions": (
        rf"\b(?:ignore|disregard|forget|override|bypass)\b[^.]{{0,40}}?\b{_ANY}\b[^.]{{0,30}}?\b{_RULES}\b"
    ),
    "reveal_prompt": (
        rf"\b(?:reveal|show|print|repeat|output|display|tell me|translate|leak|give me)\b[^.]{{0,40}}?\b{_PROMPT}\b"
    ),
    "role_change": (
        r"\b(?:you are now|from now on,? you (?:are|will|only|must)|act as|pretend (?:to be|you are|that you))\b"
        rf"[^.]{{0,60}}?\b{_FREED}\b"
    ),
    "chat_markup": (
        r"<\|(?:im_start|im_end|system|user|assistant|endoftext|eot_id|start_header_id)\|>|\[/?inst\]|<</?sys>>"
    ),
}
"""Expressions by name; none repeats inside a repetition, so that no text makes them slow."""


def find_injections(text: str, patterns: Mapping[str, re.Pattern[str]]) -> list[str]:
    """The names of the patterns that a text matches, in lower case, with single spaces and no invisible characters."""
    folded = _folded(text)
    return [name for name, pattern in patterns.items() if pattern.search(folded)]


def _folded(text: str) -> str:
    visible = "".join(character for character in text if unicodedata.category(character) != "Cf")
    return " ".join(unicodedata.normalize("NFKC", visible).lower().split())
