"""The durable outbox of `perennial notify`, in one SQLite file: what was reported, what waits, and how far was looked.

A message enters once per target, whatever is seen again. An attempt is recorded before it is made, so that a full disk ends
no message's pauses. A message is marked as sent after the receiver took it, so that a kill between the two sends it once
more; every message names its key, by which a reader knows a repetition.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perennial.services.news import Message
from tasks.core.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    key TEXT NOT NULL,
    target TEXT NOT NULL,
    model TEXT NOT NULL,
    event TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    num_attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL,
    sent_at REAL,
    PRIMARY KEY (key, model, target)
) STRICT;
CREATE INDEX IF NOT EXISTS waiting ON messages (next_attempt_at) WHERE sent_at IS NULL;
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Waiting:
    """A message that one target has not received."""

    message: Message
    target: str
    num_attempts: int


class Outbox:
    """Messages on disk, for one process at a time. Every method raises a StoreError where the disk fails or is full.

    Args:
        path: The SQLite file; its folder is made.

    Raises:
        StoreError: The file cannot be made, is no outbox, or another process has it open.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=1.0)
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two senders would send twice
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except (sqlite3.Error, OSError) as error:
            found = f"{type(error).__name__} ({error})"
            expected, todo = (
                "a file for the outbox that no other process has open",
                "Stop the other one, or correct --outbox.",
            )
            raise StoreError(str(path), found, expected, todo) from error

    def note(self, name: str) -> str | None:
        """A note, such as the time of the last look; None where it was never written."""
        with self._explained():
            row = self._connection.execute("SELECT value FROM notes WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def put(self, messages: Iterable[tuple[Message, str]], notes: Mapping[str, str], now: float) -> int:
        """Accepts the messages for their targets and writes the notes, in one durable step.

        Returns:
            The number of new messages; one that was accepted before changes nothing.
        """
        before = self._connection.total_changes
        with self._explained(), self._connection:
            for one, target in messages:
                self._connection.execute(
                    "INSERT OR IGNORE INTO messages (key, target, model, event, title, body, next_attempt_at) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (one.key, target, one.model, one.event, one.title, one.body, now),
                )
            added = self._connection.total_changes - before
            self._connection.executemany("INSERT OR REPLACE INTO notes VALUES (?, ?)", notes.items())
        return added

    def due(self, now: float, limit: int = 100) -> list[Waiting]:
        """Messages whose next attempt is due: fewest attempts first, then the longest waiting."""
        with self._explained():
            rows = self._connection.execute(
                "SELECT key, model, event, title, body, target, num_attempts FROM messages WHERE sent_at IS NULL "
                "AND next_attempt_at <= ? ORDER BY num_attempts, next_attempt_at, rowid LIMIT ?",
                (now, limit),
            ).fetchall()
        return [Waiting(Message(*row[:5]), row[5], row[6]) for row in rows]

    def begin(self, waiting: Waiting, until: float) -> None:
        """Records an attempt that is about to be made, and the time of the next one should it fail."""
        self._change(waiting, "UPDATE messages SET num_attempts = num_attempts + 1, next_attempt_at = ?", until)

    def mark_sent(self, waiting: Waiting, now: float) -> None:
        """Records that the target received the message."""
        self._change(waiting, "UPDATE messages SET sent_at = ?", now)

    def drop(self, waiting: Waiting) -> None:
        """Removes a message whose target is gone; it enters again where the target returns while it is news."""
        self._change(waiting, "DELETE FROM messages")

    def num_waiting(self) -> int:
        """How many messages some target has not received."""
        with self._explained():
            row = self._connection.execute("SELECT count(*) FROM messages WHERE sent_at IS NULL").fetchone()
        return int(row[0])

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def _change(self, waiting: Waiting, statement: str, *values: float) -> None:
        message = waiting.message
        with self._explained(), self._connection:
            self._connection.execute(
                f"{statement} WHERE key = ? AND model = ? AND target = ?",
                (*values, message.key, message.model, waiting.target),
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            found, todo = f"{type(error).__name__} ({error})", "Free space on its disk, or correct its rights."
            raise StoreError(str(self._path), found, "a file that can be read and written", todo) from error
