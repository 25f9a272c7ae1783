"""MLflow's absolute paths in a database that was copied elsewhere together with its folder of artifacts.

MLflow writes the full path of every artifact into its database. A server that hands artifacts out itself has none
(``mlflow-artifacts:``); the embedded registry, a SQLite file with its artifacts beside it, would go on reading and writing
where the folder was before it moved.
"""

from __future__ import annotations

import logging
import sqlite3
from contextlib import closing
from functools import cache
from pathlib import Path

from tasks.core.errors import StoreError

logger = logging.getLogger(__name__)

ARTIFACTS = "mlflow-artifacts"
"""The folder of artifacts beside an embedded database."""
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""Where MLflow 3.17 keeps a path (read off its schema)."""


def artifact_root(database: Path) -> str:
    """Where an embedded database's artifacts lie, as a ``file:`` URI."""
    return (database.resolve().parent / ARTIFACTS).as_uri()


@cache
def follow_moved_artifacts(database: Path) -> None:
    """Points an embedded database at the artifacts beside it, where it was copied from another folder; once a process.

    Only the experiments that Perennial made are touched: their location ends with :data:`ARTIFACTS`. All paths change in
    one transaction, and a database that did not move is only read.

    Args:
        database: The SQLite file; nothing happens where there is none yet.

    Raises:
        StoreError: The database cannot be read or written.
    """
    if not database.is_file():
        return
    root = artifact_root(database)
    try:
        with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
            if not _has_tables(connection):
                return
            made = "artifact_location LIKE 'file:%/' || ? AND artifact_location <> ?"
            found = connection.execute(f"SELECT DISTINCT artifact_location FROM experiments WHERE {made}", (ARTIFACTS, root))
            for (former,) in found.fetchall():
                for table, column in _PLACES:
                    connection.execute(
                        f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                        f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                        (root, len(former) + 1, former, len(former) + 1, f"{former}/"),
                    )
                logger.warning("MLflow's database was moved: artifacts are read from %s, no longer from %s", root, former)
    except sqlite3.Error as error:
        raise StoreError(
            str(database),
            f"a database that SQLite cannot use ({error})",
            "MLflow's SQLite database",
            "Restore it from a backup, or move it away to begin a new registry.",
        ) from error


def _has_tables(connection: sqlite3.Connection) -> bool:
    """Whether MLflow has made its schema, of a release that has every place."""
    return all(
        any(column == row[1] for row in connection.execute(f"PRAGMA table_info({table})")) for table, column in _PLACES
    )
