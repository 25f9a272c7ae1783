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

from tasks.core.tool_calls import (
    OPTIONAL_KEYS,
    message_text,
    message_texts,
    replace_message_texts,
    replace_tool_texts,
    tool_texts,
    tools_message,
)

Row = Mapping[str, Any]
"""One canonical row as a plain dictionary, keys as in the schemas below."""

_PLAIN_MESSAGE = [pa.field("role", pa.string()), pa.field("content", pa.string())]
_TOOL_CALL = pa.struct([pa.field("id", pa.string()), pa.field("name", pa.string()), pa.field("arguments", pa.string())])
MESSAGE = pa.struct(
    [
        *_PLAIN_MESSAGE,
        pa.field("tool_calls", pa.list_(_TOOL_CALL)),
        pa.field("tool_call_id", pa.string()),
        pa.field("learned", pa.bool_()),
    ]
)
"""``arguments`` are a JSON object as text. A message of role ``tool`` is the result of the call ``tool_call_id``.
``learned`` is false for a reply that is not to be learned. Keys beyond role and content stand only where they are set."""
_COMMON = [
    pa.field("label", pa.string()),
    pa.field("annotations", pa.list_(pa.struct([pa.field("annotator", pa.string()), pa.field("label", pa.string())]))),
    pa.field("context", pa.string()),
    pa.field("groups", pa.list_(pa.struct([pa.field("name", pa.string()), pa.field("value", pa.string())]))),
    pa.field("source", pa.string()),
    pa.field("created_at", pa.string()),
    pa.field("split_group", pa.string()),
    pa.field("known_values", pa.list_(pa.string())),
    pa.field("tools", pa.list_(pa.string())),
]
MESSAGES_SCHEMA = pa.schema([pa.field("id", pa.string()), pa.field("messages", pa.list_(MESSAGE)), *_COMMON])
"""``known_values`` are structured personal values of the record (customer name, account id): an exact deny list for
the scrubber, which empties it. ``split_group`` is the near-duplicate cluster, never on both sides of a split. ``tools`` are
those that the conversation may call, each as JSON in OpenAI's form."""
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
_SINGLE_VALUES = ("label", "source", "created_at")
_NAMED_VALUES = ("annotations", "groups")


def iter_texts(row: Row) -> Iterator[tuple[str, str]]:
    """Yields ``(field path, text)`` for every free-text field of a row, in a fixed order.

    Paths look like ``messages.0.content``, ``chosen.0.content`` and ``context``; a value in a call's arguments is
    ``messages.1.tool_calls.0.customer.email``, one in a result that is JSON ``messages.2.content.email``. What a row holds
    beside them, such as its label, is in :func:`iter_values`.
    """
    for name in _CONVERSATIONS:
        for index, message in enumerate(row.get(name) or ()):
            yield from message_texts(f"{name}.{index}", message)
    for index, tool in enumerate(row.get("tools") or ()):
        yield from tool_texts(f"tools.{index}", tool)
    if row.get("context"):
        yield "context", row["context"]


def replace_texts(row: Row, replace: Callable[[str, str], str]) -> dict[str, Any]:
    """Returns a copy of the row in which each free text is ``replace(field path, text)``; the row is not modified."""
    changed = dict(row)
    for name in _CONVERSATIONS:
        if row.get(name) is not None:
            changed[name] = [
                replace_message_texts(f"{name}.{index}", message, replace) for index, message in enumerate(row[name])
            ]
    if row.get("tools"):
        changed["tools"] = [replace_tool_texts(f"tools.{index}", tool, replace) for index, tool in enumerate(row["tools"])]
    if row.get("context"):
        changed["context"] = replace("context", row["context"])
    return changed


def iter_values(row: Row) -> Iterator[tuple[str, str]]:
    """Yields ``(field path, value)`` for every string of a row that is no free text, in a fixed order.

    Paths look like ``label``, ``annotations.0.label``, ``groups.0.value``, ``source``, ``created_at`` and
    ``messages.0.role``. The id and the cluster are not among them: the project itself makes them.
    """
    for name in _SINGLE_VALUES:
        if row.get(name):
            yield name, row[name]
    for name in _NAMED_VALUES:
        for index, item in enumerate(row.get(name) or ()):
            yield from ((f"{name}.{index}.{part}", value) for part, value in item.items() if value)
    for name in _CONVERSATIONS:
        for index, message in enumerate(row.get(name) or ()):
            if message["role"]:
                yield f"{name}.{index}.role", message["role"]


def iter_strings(row: Row) -> Iterator[tuple[str, str]]:
    """Yields ``(field path, string)`` for every string that came with the row: its free texts, then its other values."""
    yield from iter_texts(row)
    yield from iter_values(row)


def replace_values(row: Row, values: Mapping[str, str]) -> dict[str, Any]:
    """Returns a copy of the row with other values at some paths of :func:`iter_values`; roles are left as they are."""
    changed = {**row, **{name: values[name] for name in _SINGLE_VALUES if name in values}}
    for name in _NAMED_VALUES:
        if row.get(name):
            changed[name] = [
                {part: values.get(f"{name}.{index}.{part}", value) for part, value in item.items()}
                for index, item in enumerate(row[name])
            ]
    return changed


def prompt_messages(row: Row) -> list[dict[str, Any]]:
    """The conversation up to the reply: all but the last message, or a preference row's prompt.

    Where tools may be called, a message of role ``tools`` comes first.
    """
    messages = row["messages"][:-1] if "messages" in row else row["prompt"]
    return [*tools_message(row), *map(plain_message, messages)]


def question_of(row: Row) -> str:
    """The user's last message in the row's prompt; empty without a prompt."""
    messages = prompt_messages(row)
    return str(messages[last_question(messages)]["content"]) if messages else ""


def last_question(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the user's last message stands: before calls and results; the last of all where the user says nothing."""
    places = [place for place, message in enumerate(messages) if message["role"] == "user"]
    return places[-1] if places else len(messages) - 1


def reply_messages(row: Row) -> list[dict[str, Any]]:
    """The messages to learn: the last of a conversation, or the chosen and the rejected one of a preference row."""
    last = [row["messages"][-1]] if "messages" in row else [row["chosen"][-1], row["rejected"][-1]]
    return [plain_message(message) for message in last]


def reply(row: Row) -> str:
    """The training target as text: the last message of a conversation, or a preference row's chosen reply."""
    return message_text(row["messages"][-1] if "messages" in row else row["chosen"][-1])


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a message with the keys that are set."""
    return {name: value for name, value in message.items() if value is not None or name not in OPTIONAL_KEYS}


def rows_to_table(rows: list[dict[str, Any]], kind: str) -> pa.Table:
    """An Arrow table with the canonical schema of ``kind``; absent keys become null."""
    schema = SCHEMAS[kind]
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a table as dictionaries; keys for tools only where a row or message has them."""
    for number, field in enumerate(table.schema):
        if field.name in _CONVERSATIONS and not _uses_tools(table.column(number)):
            plain = pa.list_(pa.struct(_PLAIN_MESSAGE))
            table = table.set_column(number, field.name, table.column(number).cast(plain))
    rows: list[dict[str, Any]] = table.to_pylist()
    uses_tools = [
        field.name
        for field in table.schema
        if field.name in _CONVERSATIONS and field.type.value_type.num_fields > len(_PLAIN_MESSAGE)
    ]
    for row in rows if "tools" in table.schema.names else ():
        if row["tools"] is None:
            del row["tools"]
        for name in uses_tools:
            row[name] = None if row[name] is None else list(map(plain_message, row[name]))
    return rows


def _uses_tools(column: pa.ChunkedArray) -> bool:
    names = [field.name for field in column.type.value_type if field.name in OPTIONAL_KEYS]
    messages = [chunk.flatten() for chunk in column.chunks]
    return any(part.field(name).null_count < len(part) for part in messages for name in names)


def with_all_columns(table: pa.Table, kind: str) -> pa.Table:
    """A stored table with the canonical schema; what an earlier version did not write is null."""
    schema = SCHEMAS[kind]
    if table.schema.equals(schema):
        return table
    columns = [
        table[field.name].cast(field.type) if field.name in table.schema.names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema.with_metadata(table.schema.metadata))


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
            self._block = (number, rows_of(self.table.slice(number * ROWS_AT_A_TIME, ROWS_AT_A_TIME)))
        return self._block[1][place]

    def __iter__(self) -> Iterator[Row]:
        for batch in self.batches():
            yield from batch

    def batches(self, size: int = ROWS_AT_A_TIME) -> Iterator[list[dict[str, Any]]]:
        """The rows in order, ``size`` dictionaries at a time."""
        for first in range(0, len(self), size):
            yield rows_of(self.table.slice(first, size))

    def take(self, positions: Iterable[int]) -> TableRows:
        """The rows at the given positions, in that order, as a new table."""
        return TableRows(self.table.take(pa.array(positions, pa.int64())))

    def in_order_of(self, column: str) -> TableRows:
        """The rows sorted by the texts of a column."""
        return TableRows(self.table.sort_by(column))


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
