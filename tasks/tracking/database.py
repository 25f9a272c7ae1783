"""MLflow's SQLite database: created atomically, and checked before MLflow opens it.

MLflow creates its tables in dozens of steps, and a full disk, or a kill, between two of them leaves a file that it can
neither complete nor use. Here the file gets its name when it is complete. SQLite's errors for an invalid file, or a full
disk, become one error, before MLflow retries and prints a traceback for every attempt.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.addresses import first_line
from tasks.core.errors import StoreError

_PREFIX = "sqlite:///"


def open_database(uri: str) -> None:
    """Creates the SQLite file of a tracking URI if absent, and checks that it can be used; other URIs are ignored.

    Raises:
        StoreError: The disk is full or read-only, or the file is no usable database.
        OSError: The folder cannot exist.
    """
    path = _path_in(uri)
    if path is None:
        return
    with database_errors(uri):
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path)
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as connection:
            # SQLite opens a file without write permission as a read-only database, which fails only later.
            if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
                raise PermissionError(13, "a file or folder that may not be written")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def reach_database(uri: str) -> None:
    """Connects once to the database server of a tracking URI; MLflow itself tries ten times, for 100 s. Others are ignored.

    Raises:
        StoreError: It does not respond, or rejects the account.
    """
    if not uri.startswith(("postgresql", "mysql", "mssql")):
        return
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    with database_errors(uri):
        create_engine(uri, poolclass=NullPool).connect().close()


@contextmanager
def database_errors(uri: str) -> Iterator[None]:
    """Turns errors of the database and its file system, except a wrong path, into :class:`~tasks.core.errors.StoreError`."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (FileNotFoundError, FileExistsError, NotADirectoryError):
        raise  # the setting has a wrong path
    except (sqlite3.Error, SQLAlchemyError, OSError) as error:
        cause = getattr(error, "orig", None) or error
        message = getattr(cause, "strerror", None) or first_line(cause)
        path = _path_in(uri)
        todo = "Check the database server, then run again."
        if path is not None:
            todo = (
                "Check the disk's free space and the file's permissions, then run again. A file that is no database, or is "
                "incomplete, has to be restored from a backup, or moved away to start with an empty one."
            )
        where = "MLflow's database" if path is None else f"MLflow's database {path}"
        raise StoreError(where, message, "a database that can be read and written", todo) from error


def _path_in(uri: str) -> Path | None:
    name = uri.removeprefix(_PREFIX).split("?", 1)[0]
    return Path(name) if uri.startswith(_PREFIX) and name and name != ":memory:" else None


def _make(path: Path) -> None:
    """Creates an empty database of MLflow under a temporary name, then renames it, unless another process was faster."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for left in path.parent.glob(f"{path.name}.making*"):
            left.unlink()
        if path.exists():
            return
        from mlflow.store.db import utils

        making = path.with_name(f"{path.name}.making")
        try:
            engine = utils.create_sqlalchemy_engine(f"{_PREFIX}{making}")
            try:
                utils._initialize_tables(engine)
            finally:
                engine.dispose()
            with making.open("rb") as file:
                os.fsync(file.fileno())
            making.rename(path)
            os.fsync(folder)
        finally:
            for left in path.parent.glob(f"{path.name}.making*"):
                left.unlink()
    finally:
        os.close(folder)
