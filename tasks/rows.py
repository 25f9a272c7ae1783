"""The canonical rows: their Arrow schemas, and how to reach and replace the text in them.

``messages`` rows carry a conversation that ends with the assistant's reply; ``preferences`` rows carry a prompt and two
replies. Stages work on plain dictionaries (``table.to_pylist()``) or Arrow columns; both sides of the conversion live here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

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
"""``known_values`` are the record's own structured personal values (customer name, account id): an exact deny-list for
the scrubber, emptied by it. ``split_group`` names the near-duplicate cluster; rows of one group never straddle a split."""
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
    """The text to learn: the last message of a conversation, or a preference row's chosen reply."""
    return str(row["messages"][-1]["content"] if "messages" in row else row["chosen"][-1]["content"])


def rows_to_table(rows: list[dict[str, Any]], kind: str) -> pa.Table:
    """An Arrow table with the canonical schema of ``kind``; absent keys become null."""
    schema = SCHEMAS[kind]
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
