"""Finds a person's values in any writing, blanks them, and keeps forgotten rows from coming back.

Two writings are the same when their letters and digits are: case, accents, separators, escapes of JSON and entities of HTML
make no difference. A value is found as whole words only.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.contracts.forgetting import ForgottenRows
from tasks.core.errors import ConfigError, InputError
from tasks.core.rows import Row, iter_strings, iter_texts
from tasks.core.secrets import id_of_key, load_secret
from tasks.core.tool_calls import iter_names

MARK = "(forgotten)"
"""What stands where a value stood."""
RECORD = "forgotten/rows"
"""Name of the record of rows that must not come back."""
MIN_SIGNS = 4
"""A value of fewer letters and digits would be found in the text of others."""
_ESCAPE = re.compile(r"\\u[0-9a-fA-F]{4}|\\[nrt]|&#?[A-Za-z0-9]{2,8};")
_BETWEEN = re.compile(r"[\W_]+")


class PersonValues:
    """The values of a person, to be found and blanked.

    Args:
        values: As anybody writes them.

    Raises:
        InputError: One has too few letters and digits.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._signs = sorted({_signs(value) for value in values}, key=lambda signs: (-len(signs), signs))
        if short := sum(len(signs) < MIN_SIGNS for signs in self._signs):
            raise InputError(
                "the values to forget",
                f"{short} with fewer than {MIN_SIGNS} letters and digits",
                "whole names, addresses and numbers, which no other person's text holds by chance",
                "Give the full name, or name the rows.",
            )

    @property
    def signs(self) -> list[str]:
        """The letters and digits of each value, the longest first."""
        return list(self._signs)

    def holds(self, text: str) -> bool:
        """Whether a text holds one of the values."""
        signs = _signs(_unescaped(text))
        return any(value in signs for value in self._signs) and next(self._spans(text), None) is not None

    def blank(self, text: str) -> str:
        """The text with each value as :data:`MARK`."""
        if not self.holds(text):
            return text
        parts, last = [], 0
        for start, end in sorted(self._spans(text)):
            if start >= last:
                parts += [text[last:start], MARK]
                last = end
        return "".join([*parts, text[last:]])

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        signs, places = _placed_signs(text)
        for value in self._signs:
            start = signs.find(value)
            while start >= 0:
                end = start + len(value)
                is_first = start == 0 or places[start - 1][1] != places[start][0]
                is_last = end == len(signs) or places[end - 1][1] != places[end][0]
                if is_first and is_last:
                    yield places[start][0], places[end - 1][1]
                start = signs.find(value, start + 1)


class SuppressedRows:
    """Tells rows that were forgotten.

    Args:
        record: What is to stay away.

    Raises:
        ConfigError: The key of the record is not there.
    """

    def __init__(self, record: ForgottenRows) -> None:
        secret = load_secret("pii.key_block", variable=record.key_env, block=record.key_block)
        if secret is None or id_of_key(secret.encode()) != record.key_id:
            raise ConfigError(
                f"environment variable {record.key_env}",
                "no key" if secret is None else f"a key with id {id_of_key(secret.encode())}",
                f"the key with id {record.key_id}, under which people were forgotten in this store",
                "Supply it: without it, rows of people who were forgotten would come back from the source.",
            )
        self._key = secret.encode()
        self._values, self._lengths, self._rows = set(record.values), set(record.lengths), set(record.rows)
        self._longest = max(record.lengths, default=0)

    def holds(self, row: Row) -> bool:
        """Whether a row is one of them, or holds a value of them."""
        return not self._rows.isdisjoint(row_hashes(row, self._key)) or any(self.is_in(text) for text in strings_of(row))

    def is_in(self, text: str) -> bool:
        """Whether a text holds a value of somebody who was forgotten."""
        words = _BETWEEN.split(_folded(_unescaped(text)))
        for first in range(len(words)):
            window = ""
            for word in words[first:]:
                window += word
                if len(window) > self._longest:
                    break
                if len(window) in self._lengths and value_hash(window, self._key) in self._values:
                    return True
        return False


def value_hash(signs: str, key: bytes) -> str:
    """The keyed hash of a value's letters and digits."""
    return hmac.new(key, f"value\0{signs}".encode(), hashlib.sha256).hexdigest()


def row_hashes(row: Row, key: bytes) -> set[str]:
    """The keyed hashes by which a row is known again: of its texts as the source has them, and of its id in that source."""
    texts = "\0".join(_signs(text) for _, text in iter_texts(row))
    known = (texts, f"id\0{row.get('source')}\0{row['id']}")
    return {hmac.new(key, f"row\0{text}".encode(), hashlib.sha256).hexdigest() for text in known}


def strings_of(row: Mapping[str, Any]) -> Iterator[str]:
    """All that may name a person in a row: its strings, the keys of its calls, its known values, its id."""
    yield from (text for _, text in (*iter_strings(row), *iter_names(row)))
    yield from row.get("known_values") or ()
    yield str(row["id"])


def blank_strings(value: Any, person: PersonValues) -> Any:
    """A JSON value with the person's values blanked in every string of it, keys included."""
    if isinstance(value, str):
        return person.blank(value)
    if isinstance(value, Mapping):
        return {person.blank(str(name)): blank_strings(item, person) for name, item in value.items()}
    return [blank_strings(item, person) for item in value] if isinstance(value, list) else value


def holds_strings(value: Any, person: PersonValues) -> bool:
    """Whether any string of a JSON value holds one of the person's values."""
    if isinstance(value, str):
        return person.holds(value)
    if isinstance(value, Mapping):
        return any(person.holds(str(name)) or holds_strings(item, person) for name, item in value.items())
    return isinstance(value, list) and any(holds_strings(item, person) for item in value)


def _folded(text: str) -> str:
    """The text without case and accents; a word with an accent stays one word."""
    if text.isascii():
        return text.lower()
    # Turkish has two letters i, of which lower case in any other language knows one.
    folded = unicodedata.normalize("NFKD", text).casefold().replace("ı", "i")
    return "".join(sign for sign in folded if not unicodedata.combining(sign))


def _signs(text: str) -> str:
    """The letters and digits of a text, without case and accents."""
    return _BETWEEN.sub("", _folded(text))


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: _meaning(match.group()), text) if "\\" in text or "&" in text else text


def _meaning(escape: str) -> str:
    if escape.startswith("\\u"):
        return chr(int(escape[2:], 16))
    return " " if escape.startswith("\\") else html.unescape(escape)


def _placed_signs(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The letters and digits of a text, and for each the start and end of what it stands for in the text."""
    signs: list[str] = []
    places: list[tuple[int, int]] = []
    last = 0
    for start, end in (*(match.span() for match in _ESCAPE.finditer(text)), (len(text), len(text))):
        pieces = [(text[place], place, place + 1) for place in range(last, start)]
        pieces.append((_meaning(text[start:end]) if end > start else "", start, end))
        for piece, first, after in pieces:
            folded = _signs(piece)
            if not folded and piece and all(map(unicodedata.combining, piece)) and places:
                places[-1] = (places[-1][0], after)  # an accent belongs to its letter
            signs.extend(folded)
            places.extend([(first, after)] * len(folded))
        last = end
    return "".join(signs), places
