"""The durable queue between an accepted alert and its run, in one SQLite file.

``offer`` returns after the alert is on disk (write-ahead log, synchronised at every commit), so that the bridge may answer
202. Delivery is at least once; the key, made when the alert is accepted and kept with it, makes it exactly once: Prefect
gives the same run for the same key. A kill between any two steps loses nothing and starts nothing twice.

A row that this release cannot read is parked: set aside in a table of its own, counted, and kept. Opening the queue with a
release that can read it puts it back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tasks.contracts.alerts import Alert
from tasks.core.errors import StoreError

logger = logging.getLogger(__name__)

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
DROP INDEX IF EXISTS waiting;
CREATE INDEX IF NOT EXISTS fewest_attempts_first ON alerts (num_attempts, next_attempt_at) WHERE delivered_at IS NULL;
CREATE TABLE IF NOT EXISTS parked (
    key TEXT PRIMARY KEY,
    model TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    accepted_at REAL NOT NULL,
    alert TEXT NOT NULL,
    parked_at REAL NOT NULL
) STRICT;
"""
_COUNT_WAITING = "SELECT count(*), min(accepted_at) FROM alerts WHERE delivered_at IS NULL"
_PARKED_COLUMNS = "key, model, fingerprint, accepted_at, alert"


class QueueFullError(Exception):
    """The queue is full; none of the offered alerts was accepted."""


@dataclass(frozen=True)
class Waiting:
    """An accepted alert that has no run yet; ``key`` is its permanent idempotency key."""

    key: str
    alert: Alert
    num_attempts: int


@dataclass(frozen=True)
class Backlog:
    """The number of waiting alerts, the time of the oldest (None when none waits), and the number of parked ones."""

    num_waiting: int
    oldest_accepted_at: float | None
    num_parked: int = 0


class AlertQueue:
    """Accepted alerts on disk; safe across threads, and across processes that share the file.

    Args:
        path: The SQLite file; its folder is made.
        cooldown_seconds: The same fingerprint of the same model and sender again within this time is a repetition.
        max_waiting: With so many undelivered alerts, no more are accepted.

    Raises:
        StoreError: The file cannot be made, or is not an alert queue.
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
            self._put_back_readable()
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                str(path), f"{type(error).__name__} ({error})", "a file that can hold the alert queue", "Check `queue`."
            ) from error

    def offer(self, alerts: Sequence[Alert], now: float) -> list[bool]:
        """Accepts the alerts that are not repetitions, all in one durable step; True for each accepted one.

        Args:
            alerts: In any number; two equal ones among them are repetitions too.
            now: Unix time. The cool-down counts in both directions, so that a clock set back accepts no repetition.

        Raises:
            QueueFullError: Too many wait; none was accepted.
            sqlite3.Error: They could not be stored; none was accepted.
        """
        with self._transaction() as connection:
            accepted = [self._insert(connection, alert, now) for alert in alerts]
            if any(accepted) and self._count_waiting(connection) > self._max_waiting:
                raise QueueFullError
        return accepted

    def due(self, now: float, limit: int = 100) -> list[Waiting]:
        """Undelivered alerts whose next attempt is due: fewest attempts first, then the longest waiting.

        An alert that keeps failing is therefore behind every new one. A row that cannot be read is parked, not returned.
        """
        while True:
            with self._lock:
                rows = self._connection.execute(
                    "SELECT key, CAST(alert AS BLOB), num_attempts FROM alerts WHERE delivered_at IS NULL "
                    "AND next_attempt_at <= ? ORDER BY num_attempts, next_attempt_at, key LIMIT ?",
                    (now, limit),
                ).fetchall()
            alerts = [(key, _readable(text), attempts) for key, text, attempts in rows]
            unreadable = [key for key, alert, _ in alerts if alert is None]
            if not unreadable:
                return [Waiting(key, alert, attempts) for key, alert, attempts in alerts if alert]
            self._park(unreadable, now)

    def mark_delivered(self, key: str, flow_run_id: str, now: float) -> None:
        """Records the run of an alert."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE alerts SET delivered_at = ?, flow_run_id = ? WHERE key = ? AND delivered_at IS NULL",
                (now, flow_run_id, key),
            )

    def postpone(self, key: str, until: float) -> None:
        """Records a failed attempt, and the time of the next one."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE alerts SET num_attempts = num_attempts + 1, next_attempt_at = ? WHERE key = ?", (until, key)
            )

    def backlog(self) -> Backlog:
        """The present backlog."""
        with self._lock:
            number, oldest = self._connection.execute(_COUNT_WAITING).fetchone()
            (parked,) = self._connection.execute("SELECT count(*) FROM parked").fetchone()
        return Backlog(number, oldest, parked)

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

    def _park(self, keys: Sequence[str], now: float) -> None:
        """Sets rows aside. The same alert raised again is then accepted in the present form, not a repetition."""
        with self._transaction() as connection:
            for key in keys:
                connection.execute(
                    f"INSERT OR REPLACE INTO parked SELECT {_PARKED_COLUMNS}, ? FROM alerts WHERE key = ?", (now, key)
                )
                connection.execute("DELETE FROM alerts WHERE key = ?", (key,))
        for key in keys:
            logger.error("alert %s cannot be read by this release; it is parked", key)

    def _put_back_readable(self) -> None:
        """Returns parked rows that this release can read to the queue."""
        with self._lock:
            rows = self._connection.execute("SELECT key, CAST(alert AS BLOB) FROM parked").fetchall()
        for key, text in rows:
            if _readable(text) is None:
                continue
            with self._transaction() as connection:
                connection.execute(
                    f"INSERT OR IGNORE INTO alerts ({_PARKED_COLUMNS}, next_attempt_at) "
                    f"SELECT {_PARKED_COLUMNS}, accepted_at FROM parked WHERE key = ?",
                    (key,),
                )
                connection.execute("DELETE FROM parked WHERE key = ?", (key,))
            logger.info("alert %s, parked by another release, waits again", key)

    def _insert(self, connection: sqlite3.Connection, alert: Alert, now: float) -> bool:
        repeated = connection.execute(
            "SELECT 1 FROM alerts WHERE model = ? AND fingerprint = ? AND accepted_at > ? AND accepted_at < ? "
            "AND CASE WHEN json_valid(alert) THEN json_extract(alert, '$.sender') = ? ELSE 0 END LIMIT 1",
            (alert.model, alert.fingerprint, now - self._cooldown, now + self._cooldown, alert.sender),
        ).fetchone()
        if repeated:
            return False
        key = f"alert-{alert.model}-{alert.sender}-{alert.fingerprint}-{now:.3f}"
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
        """An atomic step that is on disk when the block is left."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read_backlog(path: Path) -> Backlog | None:
    """The backlog of a queue that another process may be using; None where there is no such file.

    Raises:
        StoreError: The file is no queue.
    """
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=5.0, uri=True)) as connection:
            number, oldest = connection.execute(_COUNT_WAITING).fetchone()
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE name = 'parked'")]
            (parked,) = connection.execute("SELECT count(*) FROM parked").fetchone() if tables else (0,)
    except sqlite3.Error as error:
        raise StoreError(str(path), type(error).__name__, "an alert queue", "Check the bridge's `queue`.") from error
    return Backlog(number, oldest, parked)


def _readable(text: bytes) -> Alert | None:
    """The alert in a row's text, or None where this release cannot read it."""
    try:
        return Alert.model_validate_json(text)
    except ValidationError:
        return None


def _synchronise_folder(folder: Path) -> None:
    """Makes the creation of the file durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
