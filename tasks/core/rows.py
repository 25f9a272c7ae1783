"""The canonical rows: their Arrow schemas, and functions to read and replace their texts.

``messages`` rows carry a conversation that ends with the assistant's reply; ``preferences`` rows carry a prompt and two
replies. Stages work on plain dictionaries or Arrow columns; this module converts between them. A row takes two kilobytes
as a dictionary and a quarter of one in Arrow, so stages that process every row of a large data set keep them in Arrow and
convert a few thousand at a time (:class:`TableRows`, :class:`RowTable`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import pyarrow as pa

Row = Mapping[str, Any]
"""One canonical row as a plain dictionary, keys as in the schemas below."""

MESSAGE = pa.struct([pa.field("role", pa.string()), pa.field("content", pa.string())])
_COMMON = [
    pa.field("label", pa.string()),
    pa.field("annotations", pa.list_(pa.struct([pa.field("annotator", pa.string()), pa.field("label", pa.string())]))),
    pa.field("context", pa.string()),
    pa.field("groups", pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))),
    pa.field("source", pa.string()),
    pa.field("created_at", pa.string()),
    pa.field("split_group", pa.string()),
    pa.field("known_values", pa.list_(pa.string())),
]
MESSAGES_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("messages", pa.list_(MESSAGE)), *_COMMON])
"""``known_values`` are structured personal values of the record (customer name, account id): an exact deny list for
the scrubber, which empties it. ``split_group`` is the near-duplicate cluster, never on both sides of a split."""
PREFERENCES_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("prompt", pa.list_(MESSAGE)),
        pa.field("chosen", pa.list_(MESSAGE)),
        pa.field("rejected", pa.list_(MESSAGE)),
        *_COMMON,
    ]
)
QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("field", pa.string()),
        pa.field("disposition", pa.string()),
        pa.field("content", pa.string()),
    ]
)
"""``disposition`` is ``quarantined`` or ``dropped``; ``content`` is the row as JSON (or the raw line when unparsable)."""

SCHEMAS: Mapping[str, pa.Schema] = {
    "messages": MESSAGES_SCHEMA,
    "preferences": PREFERENCES_SCHEMA,
    "quarantine": QUARANTINE_SCHEMA,
}
ROWS_AT_A_TIME = 8_192
"""Rows converted to dictionaries at a time, about 20 MB."""
_CHARACTERS_AT_A_TIME = 32 << 20
"""Characters converted to dictionaries at a time, if rows are long."""
_CONVERSATIONS = ("messages", "prompt", "chosen", "rejected")


def iter_texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yields ``(field path, text)`` for every free-text field of a row, in a fixed order.

    Paths look like ``messages.0.content``, ``chosen.0.content`` and ``context``. Labels and ids are not free text.
    """
    for name in _CONVERSATIONS:
        for index, message in enumerate(row.get(name) or ()):
            yield f"{name}.{index}.content", message["content"]
    if row.get("context"):
        yield "context", row["context"]


def replace_texts(row: Row, replace: Callable[[str, str], str]) -> dict[str, Any]:
    """Returns a copy of the row in which each free text is ``replace(field path, text)``; the row is not modified."""
    changed = dict(row)
    for name in _CONVERSATIONS:
        if row.get(name) is not None:
            changed[name] = [
                {"role": message["role"], "content": replace(f"{name}.{index}.content", message["content"])}
                for index, message in enumerate(row[name])
            ]
    if row.get("context"):
        changed["context"] = replace("context", row["context"])
    return changed


def prompt_messages(row: Row) -> list[dict[str, str]]:
    """The conversation up to the reply: all but the last message, or a preference row's prompt."""
    messages = row["messages"][:-1] if "messages" in row else row["prompt"]
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def reply(row: Row) -> str:
    """The training target: the last message of a conversation, or a preference row's chosen reply."""
    return str(row["messages"][-1]["content"] if "messages" in row else row["chosen"][-1]["content"])


def rows_to_table(rows: list[dict[str, Any]], kind: str) -> pa.Table:
    """An Arrow table with the canonical schema of ``kind``; absent keys become null."""
    schema = SCHEMAS[kind]
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


class TableRows(Sequence[Row]):
    """The rows of an Arrow table, converted to dictionaries on access, a block at a time.

    Repeated iteration is cheap; random access to single rows is not.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._block: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> TableRows: ...
    def __getitem__(self, index: int | slice) -> Row | TableRows:
        if isinstance(index, slice):
            first, last, step = index.indices(len(self))
            if step != 1:
                return self.take(range(first, last, step))
            return TableRows(self.table.slice(first, max(0, last - first)))
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number, place = divmod(index % len(self), ROWS_AT_A_TIME)
        if self._block[0] != number:
            self._block = (number, self.table.slice(number * ROWS_AT_A_TIME, ROWS_AT_A_TIME).to_pylist())
        return self._block[1][place]

    def __iter__(self) -> Iterator[Row]:
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = ROWS_AT_A_TIME) -> Iterator[list[dict[str, Any]]]:
        """The rows in order, ``size`` dictionaries at a time."""
        for first in range(0, len(self), size):
            yield self.table.slice(first, size).to_pylist()

    def take(self, positions: Iterable[int]) -> TableRows:
        """The rows at the given positions, in that order, as a new table."""
        return TableRows(self.table.take(pa.array(positions, pa.int64())))


class RowTable:
    """Collects rows of one kind in Arrow, batch by batch."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._parts: list[pa.Table] = []

    def extend(self, rows: list[dict[str, Any]]) -> None:
        """Adds rows; the caller need not keep them."""
        if rows:
            self._parts.append(rows_to_table(rows, self._kind))

    def table(self) -> pa.Table:
        """All rows so far."""
        return pa.concat_tables(self._parts) if self._parts else rows_to_table([], self._kind)


class Rows(Sequence[Row]):
    """Rows of one kind that are added one at a time, in Arrow except for the last few.

    Args:
        kind: The kind of the rows.
    """

    def __init__(self, kind: str) -> None:
        self._done = RowTable(kind)
        self._last: list[dict[str, Any]] = []
        self._size = self._count = 0

    def append(self, row: dict[str, Any]) -> None:
        """Adds a row; the caller need not keep it."""
        self._last.append(row)
        self._count += 1
        self._size += len(row.get("content") or "") + sum(len(text) for _, text in iter_texts(row))
        if len(self._last) == ROWS_AT_A_TIME or self._size > _CHARACTERS_AT_A_TIME:
            self._flush()

    def table(self) -> pa.Table:
        """All rows so far."""
        self._flush()
        return self._done.table()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Row]:
        return iter(TableRows(self.table()))

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> TableRows: ...
    def __getitem__(self, index: int | slice) -> Row | TableRows:
        return TableRows(self.table())[index]

    def _flush(self) -> None:
        self._done.extend(self._last)
        self._last, self._size = [], 0
