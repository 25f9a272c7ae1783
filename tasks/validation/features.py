"""Features of each row, so that expectations see numbers, roles and labels and never a text."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from tasks.core.rows import Row, iter_texts
from tasks.text.languages import language_of

COLUMNS = (
    "id", "num_messages", "foreign_roles", "last_roles", "prompt_chars", "reply_chars", "shortest_message_chars",
    "control_share", "latin_share", "label", "length_band", "language",
)  # fmt: skip


def row_features(rows: Sequence[Row], allowed_roles: Sequence[str], *, languages: bool = False) -> pd.DataFrame:
    """One line per row with the columns :data:`COLUMNS`, indexed by the row's position.

    ``last_roles`` is the role that each conversation to learn ends with (``assistant`` when all do); ``reply_chars`` is the
    shortest of a pair's replies; ``length_band`` is the power of two that the whole text's length reaches; ``language`` is
    that of the whole text, empty unless ``languages`` is set.
    """
    allowed = set(allowed_roles)
    frame = pd.DataFrame([_features(row, allowed, languages) for row in rows], columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(("id", "foreign_roles", "last_roles", "label", "length_band", "language"), object))


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
        min((_chars(message) for message in messages), default=0),
        _control_share(text),
        latin_share(text),
        row.get("label"),
        f"<{1 << len(text).bit_length()}",
        language_of(" ".join(text or "" for _, text in iter_texts(row))) if languages else None,
    )


def _chars(message: Mapping[str, Any]) -> int:
    return len((message["content"] or "").strip())


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
