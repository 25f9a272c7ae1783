"""Updates MLflow's absolute paths in a database that was copied with its folder of artifacts.

MLflow stores the absolute path of every artifact in its database. A server that serves artifacts has none
(``mlflow-artifacts:``); the embedded registry, a SQLite file with its artifacts beside it, would continue to use the former
location.
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
_PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
    ("logged_models", "artifact_location"),
)
"""The columns with paths in the schema of MLflow 3.17."""


def artifact_root(database: Path) -> str:
    """The folder of an embedded database's artifacts, as a ``file:`` URI."""
    return (database.resolve().parent / ARTIFACTS).as_uri()


@cache
def follow_moved_artifacts(database: Path) -> None:
    """Points an embedded database that was copied from another folder at the artifacts beside it; once per process.

    Only experiments of Perennial change: their location ends with :data:`ARTIFACTS`. All paths change in one transaction,
    and a database that was not moved is only read.

    Args:
        database: The SQLite file; nothing happens if it does not exist.

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
            condition = "artifact_location LIKE 'file:%/' || ? AND artifact_location <> ?"
            found = connection.execute(
                f"SELECT DISTINCT artifact_location FROM experiments WHERE {condition}", (ARTIFACTS, root)
            )
            for (former,) in found.fetchall():
                for table, column in _PATH_COLUMNS:
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
            "Restore it from a backup, or move it away to start a new registry.",
        ) from error


def _has_tables(connection: sqlite3.Connection) -> bool:
    """Whether MLflow has created its schema, with all of these columns."""
    return all(
        any(column == row[1] for row in connection.execute(f"PRAGMA table_info({table})")) for table, column in _PATH_COLUMNS
    )
