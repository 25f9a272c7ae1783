"""The durable queue between an accepted alert and its run, in one SQLite file.

``offer`` returns after the alert lies on the disk (write-ahead log, synchronised at every commit), so that a 202 may be
said. Delivery is at least once; the key, made when the alert is accepted and kept with it, makes it once: Prefect answers
the same key with the same run. So a kill between any two steps loses nothing and starts nothing twice.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.contracts import Alert
from tasks.errors import StoreError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS alerts (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    alert TEXT NOT NULL,
    num_attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL,
    delivered_at REAL,
    flow_run_id TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS by_fingerprint ON alerts (model, fingerprint, accepted_at);
CREATE INDEX IF NOT EXISTS waiting ON alerts (next_attempt_at) WHERE delivered_at IS NULL;
"""


class QueueFullError(Exception):
    """As many alerts wait as may wait; none of those offered was taken."""


@dataclass(frozen=True)
class Waiting:
    """An accepted alert that has no run yet; ``key`` is its idempotency key, for ever the same."""

    key: str
    alert: Alert
    num_attempts: int


@dataclass(frozen=True)
class Backlog:
    """How many alerts wait, and since when the oldest does (None when none waits)."""

    num_waiting: int
    oldest_accepted_at: float | None


class AlertQueue:
    """Accepted alerts on disk; safe across threads, and across processes that share the file.

    Args:
        path: The SQLite file; its folder is made.
        cooldown_seconds: The same fingerprint of the same model again within this time is a repetition.
        max_waiting: With so many undelivered, no more are taken.

    Raises:
        StoreError: The file cannot be made, or is none of ours.
    """

    def __init__(self, path: Path, *, cooldown_seconds: float, max_waiting: int = 100_000) -> None:
        self._cooldown = cooldown_seconds
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=5.0, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            _synchronise_folder(path.parent)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                str(path), f"{type(error).__name__} ({error})", "a file that can hold the alert queue", "Check `queue`."
            ) from error

    def offer(self, alerts: Sequence[Alert], now: float) -> list[bool]:
        """Takes the alerts that are no repetitions, all in one durable step; True for each one taken.

        Args:
            alerts: In any number; two equal ones among them are repetitions too.
            now: Unix time. A clock set back does not reopen the past: the cool-down counts in both directions.

        Raises:
            QueueFullError: Too many wait; nothing was taken.
            sqlite3.Error: They could not be stored; nothing was taken.
        """
        with self._transaction() as connection:
            taken = [self._insert(connection, alert, now) for alert in alerts]
            if any(taken) and self._count_waiting(connection) > self._max_waiting:
                raise QueueFullError
        return taken

    def due(self, now: float, limit: int = 100) -> list[Waiting]:
        """Undelivered alerts whose next attempt has come, longest waiting first."""
        with self._lock:
            found = self._connection.execute(
                "SELECT key, alert, num_attempts FROM alerts WHERE delivered_at IS NULL AND next_attempt_at <= ? "
                "ORDER BY next_attempt_at, key LIMIT ?",
                (now, limit),
            ).fetchall()
        return [Waiting(key, Alert.model_validate_json(alert), attempts) for key, alert, attempts in found]

    def mark_delivered(self, key: str, flow_run_id: str, now: float) -> None:
        """Notes the run that an alert became."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE alerts SET delivered_at = ?, flow_run_id = ? WHERE key = ? AND delivered_at IS NULL",
                (now, flow_run_id, key),
            )

    def postpone(self, key: str, until: float) -> None:
        """Notes a failed attempt, and when to try again."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE alerts SET num_attempts = num_attempts + 1, next_attempt_at = ? WHERE key = ?", (until, key)
            )

    def backlog(self) -> Backlog:
        """What waits."""
        with self._lock:
            number, oldest = self._connection.execute(
                "SELECT count(*), min(accepted_at) FROM alerts WHERE delivered_at IS NULL"
            ).fetchone()
        return Backlog(number, oldest)

    def forget_delivered(self, before: float) -> int:
        """Removes alerts delivered before a time and out of their cool-down; the number removed."""
        with self._transaction() as connection:
            return connection.execute(
                "DELETE FROM alerts WHERE delivered_at < ? AND accepted_at < ?", (before, before - self._cooldown)
            ).rowcount

    def close(self) -> None:
        """Closes the file."""
        with self._lock:
            self._connection.close()

    def _insert(self, connection: sqlite3.Connection, alert: Alert, now: float) -> bool:
        repeated = connection.execute(
            "SELECT 1 FROM alerts WHERE model = ? AND fingerprint = ? AND accepted_at > ? AND accepted_at < ? LIMIT 1",
            (alert.model, alert.fingerprint, now - self._cooldown, now + self._cooldown),
        ).fetchone()
        if repeated:
            return False
        key = f"alert-{alert.model}-{alert.fingerprint}-{now:.3f}"
        connection.execute(
            "INSERT INTO alerts (key, model, fingerprint, accepted_at, alert, next_attempt_at) VALUES (?, ?, ?, ?, ?, ?)",
            (key, alert.model, alert.fingerprint, now, alert.model_dump_json(), now),
        )
        return True

    @staticmethod
    def _count_waiting(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM alerts WHERE delivered_at IS NULL").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One step that happens wholly or not at all, and lies on the disk when the block is left."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def _synchronise_folder(folder: Path) -> None:
    """Makes the file's own existence durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
