"""JSON as records: an object a line, an array, objects one after the other, or rows under a path in a document."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from tasks.core.errors import InputError
from tasks.ingest.containers import Container
from tasks.ingest.records import Record

_LONGEST_ESCAPE = 16

Style = Literal["lines", "array", "values", "path"]


def read_json(container: Container, encoding: str, records: str | None) -> Callable[[], Iterator[Record]]:
    """What reads the records of a JSON file: an object a line, an array, objects one after the other, or rows under a path.

    Args:
        container: The file.
        encoding: Its encoding.
        records: Where the rows stand in a document, such as ``tickets`` or ``data.items``; None: the file is the rows.
    """
    path = tuple(records.split(".")) if records else ()
    style = "path" if path else _style_of(container, encoding)
    return (
        partial(_read_json_lines, container, encoding)
        if style == "lines"
        else partial(_read_values, container, encoding, style, path)
    )


def _style_of(container: Container, encoding: str) -> Style:
    """How the objects are written, by the first of them."""
    head = ""
    for text in container.texts(encoding):
        head = (head + text).lstrip()
        if len(head) > 1 and head[1:].strip():
            break
    if head.startswith("["):
        return (
            "array"
            if PurePosixPath(container.name).suffix.lower() == ".json" or head[1:].lstrip()[:1] in ("{", "]")
            else "lines"
        )
    first = next((line for line in container.lines(encoding, universal=True) if line.strip()), "")
    if _parse_object("", first).fault is None:
        return "lines"
    try:
        return "values" if isinstance(next(JsonText(container, encoding).values(), None), dict) else "lines"
    except (ValueError, RecursionError, InputError):
        return "lines"


def _read_json_lines(container: Container, encoding: str) -> Iterator[Record]:
    for number, line in enumerate(container.lines(encoding, universal=True), start=1):
        if line.strip():
            yield _parse_object(f"line-{number}", line.rstrip("\r\n"))


def _parse_object(place: str, line: str) -> Record:
    text = line.rstrip()
    try:
        value = json.loads(text.removesuffix(","))  # an array whose brackets were cut away has a comma after each object
    except RecursionError:
        return Record(place, {}, line, "nested_too_deeply")
    except ValueError:
        return Record(place, {}, line, "malformed_json")
    return Record(place, value, line) if isinstance(value, dict) else Record(place, {}, line, "not_an_object")


def _read_values(container: Container, encoding: str, style: Style, path: tuple[str, ...]) -> Iterator[Record]:
    text = JsonText(container, encoding)
    try:
        items = text.values() if style == "values" else text.under(path) if style == "path" else text.items()
        for number, item in enumerate(items, start=1):
            if isinstance(item, dict):
                yield Record(f"item-{number}", item)
            else:
                yield Record(f"item-{number}", {}, json.dumps(item), "not_an_object")
    except json.JSONDecodeError as error:
        line, column = text.place_of(error)
        raise InputError(
            f"{container.path}, line {line}, column {column}",
            error.msg,
            "JSON objects",
            "Correct the file there, or write one object per line (JSONL), where a bad line costs one row.",
        ) from error
    except (RecursionError, ValueError) as error:
        raise InputError(
            container.path,
            f"JSON that cannot be read ({type(error).__name__})",
            "an array of objects",
            "Write one object per line.",
        ) from error


class JsonText:
    """A JSON file read value by value: no more of its text is kept than the value that is being read.

    Args:
        container: The file.
        encoding: Its encoding.
    """

    def __init__(self, container: Container, encoding: str) -> None:
        self._container = container
        self._texts = container.texts(encoding)
        self._decoder = json.JSONDecoder()
        self._text, self._place = "", 0
        self._lines = self._columns = 0  # of what was read and is no longer kept

    def items(self) -> Iterator[Any]:
        """The items of an array in order.

        Raises:
            json.JSONDecodeError: The text is no array; see :meth:`place_of`.
            InputError: An item is longer than a record may be.
        """
        yield from self._items()
        if self._next():
            raise json.JSONDecodeError("Extra data", self._text, self._place)

    def values(self) -> Iterator[Any]:
        """The values one after the other, with or without commas between them; raises as :meth:`items`."""
        while self._next():
            yield self._value()
            if self._next() == ",":
                self._take(",")

    def under(self, path: tuple[str, ...]) -> Iterator[Any]:
        """The items of the arrays that stand under a path of names, in every value of the file; raises as :meth:`items`."""
        while character := self._next():
            yield from self._items(path) if character == "[" else self._members(path)
            if self._next() == ",":
                self._take(",")

    def _items(self, path: tuple[str, ...] = ()) -> Iterator[Any]:
        """The items of the array that begins here, or what stands under a path in each of them."""
        self._take("[")
        while self._next() != "]":
            if path:
                yield from self._members(path)
            else:
                yield self._value()
            if self._next() != "]":
                self._take(",")
        self._take("]")

    def _members(self, path: tuple[str, ...]) -> Iterator[Any]:
        """What stands under a path in the object that begins here. Other members are read and forgotten."""
        self._take("{")
        while self._next() != "}":
            name = self._value()
            self._take(":")
            is_ours, character = name == path[0], self._next()
            if is_ours and character == "[":
                yield from self._items(path[1:])
            elif is_ours and character == "{" and len(path) > 1:
                yield from self._members(path[1:])
            elif is_ours and character == "{":
                yield self._value()
            else:
                self._value()
            if self._next() != "}":
                self._take(",")
        self._take("}")

    def place_of(self, error: json.JSONDecodeError) -> tuple[int, int]:
        """Line and column in the file of an error in what is kept of it."""
        return self._lines + error.lineno, error.colno + (self._columns if error.lineno == 1 else 0)

    def _next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in " \t\n\r":
                self._place += 1
            if self._place < len(self._text) or not self._more():
                return self._text[self._place : self._place + 1]

    def _take(self, wanted: str) -> None:
        if self._next() != wanted:
            raise json.JSONDecodeError(f"Expecting '{wanted}' delimiter", self._text, self._place)
        self._place += 1

    def _value(self) -> Any:
        self._next()
        while True:
            length = len(self._text) - self._place
            try:
                value, end = self._decoder.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                is_cut = error.msg.startswith("Unterminated string") or error.pos >= len(self._text) - _LONGEST_ESCAPE
                if not is_cut or not self._more(length):
                    raise
            else:
                if end < len(self._text) or not self._more():  # else a number may go on
                    self._place = end
                    return value
            self._container.check_record(self._text[self._place :], self._lines + 1)

    def _more(self, at_least: int = 1) -> bool:
        """Reads on, at least so many characters where there are so many; what lies before the place is forgotten."""
        parts, length = [], 0
        while length < at_least and (text := next(self._texts, "")):
            parts.append(text)
            length += len(text)
        if parts:
            passed = self._text[: self._place]
            newlines = passed.count("\n")
            self._lines += newlines
            self._columns = len(passed) - passed.rindex("\n") - 1 if newlines else self._columns + len(passed)
            self._text, self._place = "".join((self._text[self._place :], *parts)), 0
        return bool(parts)
