"""Features of each row, so that expectations see numbers, roles and labels and never a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from tasks.core.rows import Row, iter_texts
from tasks.core.tool_calls import message_text
from tasks.measures.tool_calls import calls_of, is_valid_call, schemas_of
from tasks.text.languages import language_of

COLUMNS = (
    "id", "num_messages", "foreign_roles", "last_roles", "prompt_chars", "reply_chars", "shortest_message_chars",
    "control_share", "latin_share", "label", "length_band", "language", "invalid_call",
)  # fmt: skip
_TEXTS = ("id", "foreign_roles", "last_roles", "label", "length_band", "language", "invalid_call")


def row_features(rows: Sequence[Row], allowed_roles: Sequence[str], *, languages: bool = False) -> pd.DataFrame:
    """One line per row with the columns :data:`COLUMNS`, indexed by the row's position.

    ``last_roles`` is the role that each conversation to learn ends with (``assistant`` when all do); ``reply_chars`` is the
    shortest of a pair's replies; ``length_band`` is the power of two that the whole text's length reaches; ``language`` is
    that of the whole text, empty unless ``languages`` is set. ``invalid_call`` is the place of the first call of a tool that
    the row does not have, or whose arguments its schema forbids.
    """
    allowed = set(allowed_roles)
    frame = pd.DataFrame([_features(row, allowed, languages) for row in rows], columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(_TEXTS, object))


def _features(row: Row, allowed: set[str], languages: bool) -> tuple[Any, ...]:
    if "messages" in row:
        messages = row["messages"] or []
        prompt, replies = messages[:-1], [messages[-1:]]
    else:
        messages = [message for name in ("prompt", "chosen", "rejected") for message in row[name] or []]
        prompt, replies = row["prompt"] or [], [row["chosen"] or [], row["rejected"] or []]
    text = "".join(text or "" for _, text in iter_texts(row))
    roles = {str(message["role"]) for message in messages}
    ends = {str(reply[-1]["role"]) if reply else "nobody" for reply in replies}
    return (
        row["id"],
        len(messages),
        ",".join(sorted(roles - allowed)) or None,
        ",".join(sorted(ends)),
        sum(_chars(message) for message in prompt if message["role"] != "system"),
        min(sum(_chars(message) for message in reply) for reply in replies),
        min((_chars(message) for message in messages if message["role"] != "tool"), default=0),
        _control_share(text),
        latin_share(text),
        row.get("label"),
        f"<{1 << len(text).bit_length()}",
        language_of(" ".join(text or "" for _, text in iter_texts(row))) if languages else None,
        _invalid_call(row, messages) if row.get("tools") else None,
    )


def _invalid_call(row: Row, messages: Sequence[Mapping[str, Any]]) -> str | None:
    schemas = schemas_of(row["tools"])
    calls = ((place, call) for place, message in enumerate(messages) for call in calls_of(message))
    return next((f"message {place}" for place, call in calls if not is_valid_call(call, schemas)), None)


def _chars(message: Mapping[str, Any]) -> int:
    return len(message_text(message).strip())


def _control_share(text: str) -> float:
    """Share of control characters (but line ends and tabs) and of U+FFFD, which decoders put for what they cannot read."""
    if text.isprintable() and "\ufffd" not in text:
        return 0.0
    return sum(_is_undecodable(character) for character in text) / len(text)


@lru_cache(maxsize=8192)
def _is_undecodable(character: str) -> bool:
    return character == "\ufffd" or (unicodedata.category(character) == "Cc" and character not in "\n\r\t")


def latin_share(text: str) -> float:
    """Share of Latin-script letters among the letters of a text; 1.0 for a text without letters."""
    if text.isascii():
        return 1.0
    letters = [character for character in text if character.isalpha()]
    return sum(map(_is_latin, letters)) / len(letters) if letters else 1.0


@lru_cache(maxsize=8192)
def _is_latin(letter: str) -> bool:
    return letter.isascii() or unicodedata.name(letter, "").startswith("LATIN")
