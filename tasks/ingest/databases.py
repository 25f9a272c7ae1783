"""A table or a query of a database as records, read once, in one transaction that may only read.

What was read is kept in a file without a name, in an order of its content: a database gives rows in any order, and the same
rows must make the same snapshot. A driver's messages may quote a row or a password, so no error repeats them.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

import numpy as np

from tasks.core.errors import ConfigError, InputError, MissingDependencyError
from tasks.core.scratch import unnamed_file
from tasks.ingest.config import Ceilings
from tasks.ingest.containers import above_bytes, too_long, too_many
from tasks.ingest.kinds import PLACEHOLDER, check_no_password
from tasks.ingest.records import Record, Records, Source
from tasks.ingest.tables import check_columns

if TYPE_CHECKING:
    import sqlalchemy as sa

_BATCH_ROWS = 1_024
_READ_ONLY = {
    "postgresql": "SET TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
    "mysql": "START TRANSACTION READ ONLY",
    "mariadb": "START TRANSACTION READ ONLY",
}
"""SQLite is opened for reading; any other database is left by a rollback."""
_DRIVERS = {
    "postgresql": "psycopg2-binary",
    "mysql": "pymysql",
    "mariadb": "pymysql",
    "mssql": "pyodbc",
    "oracle": "oracledb",
    "snowflake": "snowflake-sqlalchemy",
    "bigquery": "sqlalchemy-bigquery",
    "duckdb": "duckdb-engine",
    "redshift": "sqlalchemy-redshift",
    "trino": "trino[sqlalchemy]",
    "clickhouse": "clickhouse-sqlalchemy",
    "databricks": "databricks-sqlalchemy",
}
_NAMED_DRIVERS = ("pymysql", "oracledb")
"""SQLAlchemy takes others where the address names none."""
_TABLE = re.compile(r"[\w$]+(\.[\w$]+)?")
_SELECT = re.compile(r"\(*\s*(select|with|values|table)\b", re.IGNORECASE)
_QUOTED = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|`[^`]*`|--[^\n]*|/\*.*?\*/", re.DOTALL)
_EXPORT = "Or export the rows to a file, such as CSV or Parquet, and name that."


def read_database(url: str, query: str | None, ceilings: Ceilings) -> Source:
    """The rows of a table or of a query.

    Args:
        url: The address in SQLAlchemy's form; ``${NAME}`` in it stands for an environment variable.
        query: A table, or one statement that selects; None: the only table.
        ceilings: How much may be in it.

    Raises:
        ConfigError: The address holds a password, or names an environment variable that is not set.
        InputError: The database cannot be read, there is no such table, or a column holds what is no text or number.
        MissingDependencyError: The package that reads this kind of database is not installed.
    """
    check_no_password(url)
    engine = _engine(url)
    try:
        with _connection_errors(url):
            connection = engine.connect()
        with connection, _query_errors(url):
            if begin := _READ_ONLY.get(engine.dialect.name):
                connection.exec_driver_sql(begin)
            statement, name = _statement(connection, url, query)
            connection = connection.execution_options(stream_results=True, max_row_buffer=_BATCH_ROWS, no_parameters=True)
            kept = _Kept(url, connection.exec_driver_sql(statement), ceilings)
            connection.rollback()
    finally:
        engine.dispose()
    return Source(name, kept.sha256, Records(kept.read, url, ceilings))


class _Kept:
    """The rows of a cursor as lines of JSON in a file without a name, in the order of their hashes."""

    def __init__(self, url: str, cursor: sa.CursorResult[Any], ceilings: Ceilings) -> None:
        names = _names(url, list(cursor.keys()))
        self._file = unnamed_file()
        starts, digests = array("q", [0]), bytearray()
        for values in cursor:
            row = {name: _plain(url, name, value) for name, value in zip(names, values, strict=True)}
            line = json.dumps(row).encode()
            if len(line) > ceilings.max_record_characters:
                raise too_long(f"{url}, row {len(starts)}", ceilings)
            if len(starts) > ceilings.max_records:
                raise too_many(url, ceilings)
            starts.append(starts[-1] + len(line))
            if starts[-1] > ceilings.max_bytes:
                raise above_bytes(url, f"more than {ceilings.max_bytes:,} bytes", ceilings)
            self._file.write(line)
            digests += hashlib.sha256(line).digest()
        self._file.flush()
        if not digests:
            raise InputError(url, "no row", "at least one", "Look at `query`, and at what this account may see.")
        hashes = np.frombuffer(digests, dtype=np.dtype(">u8")).reshape(-1, 4)
        self._starts, self._order = starts, np.argsort(hashes[:, 0], kind="stable")
        self.sha256 = hashlib.sha256(hashes[self._order].tobytes()).hexdigest()

    def read(self) -> Iterator[Record]:
        """The records, from the start each time."""
        for number, index in enumerate(self._order, start=1):
            start, end = self._starts[index], self._starts[index + 1]
            yield Record(f"row-{number}", json.loads(os.pread(self._file.fileno(), end - start, start)))


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    from sqlalchemy import exc

    try:
        yield
    except exc.SQLAlchemyError as error:
        raise InputError(
            url,
            f"a database that lets nobody in ({_code(error)})",
            "one that this account may read",
            "Check host, port, database, account and password, and that the server accepts connections from here.",
        ) from None


@contextmanager
def _query_errors(url: str) -> Iterator[None]:
    from sqlalchemy import exc

    try:
        yield
    except exc.SQLAlchemyError as error:
        raise InputError(
            url,
            f"a query that fails ({_code(error)})",
            "a table, or a statement that selects, which this account may read",
            "Try it with the database's own client; check the names of tables and columns, and the rights.",
        ) from None


def _code(error: Exception) -> str:
    """The kind of a database's error, with its SQLSTATE where the driver gives one."""
    cause = getattr(error, "orig", None)
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return type(cause or error).__name__ + (f", SQLSTATE {state}" if isinstance(state, str) else "")


def _engine(url: str) -> sa.Engine:
    """The engine of an address. SQLite opens a file for reading only, and makes none."""
    import sqlalchemy as sa
    from sqlalchemy import exc

    try:
        address = sa.make_url(_filled(url))
    except (exc.ArgumentError, ValueError):
        raise InputError(
            url, "an address of no known form", "one such as postgresql://host/database", "Correct it; quote `/` and `@`."
        ) from None
    kind = address.get_backend_name()
    if kind == "postgres":  # as many tools write it, and SQLAlchemy does not
        address, kind = address.set(drivername=address.drivername.replace("postgres", "postgresql", 1)), "postgresql"
    if kind == "sqlite":
        file = Path(address.database or "").expanduser()
        if not file.is_file():
            raise InputError(
                url, "no such file", "an SQLite file", "Correct the path: sqlite:///rows.db, sqlite:////srv/rows.db."
            )
        address = sa.URL.create(
            "sqlite", database=f"file:{quote(str(file.absolute()))}", query={"mode": "ro", "uri": "true"}
        )
    try:
        engine = sa.create_engine(address, poolclass=sa.NullPool)
    except (exc.NoSuchModuleError, ImportError):
        raise MissingDependencyError(
            url, f"no package that reads {kind}", "its driver", f"{_driver_of(kind)} {_EXPORT}"
        ) from None
    if engine.dialect.is_async:
        raise InputError(url, "an asynchronous driver", "a synchronous one", f"Write {kind}:// without a driver.")
    return engine


def _driver_of(kind: str) -> str:
    """What to install for a kind of database."""
    if (package := _DRIVERS.get(kind)) is None:
        return f"Install SQLAlchemy's dialect for {kind}."
    return f"Run `pip install '{package}'`" + (f", and write {kind}+{package}://." if package in _NAMED_DRIVERS else ".")


def _filled(url: str) -> str:
    """The address with the values of its environment variables."""

    def value_of(match: re.Match[str]) -> str:
        if (value := os.environ.get(match[1])) is None:
            raise ConfigError(
                url, f"{match[1]}, which is not set", "an environment variable", "Set it where the run executes."
            )
        return quote(value, safe="")

    return PLACEHOLDER.sub(value_of, url)


def _statement(connection: sa.Connection, url: str, query: str | None) -> tuple[str, str]:
    """The statement, and the name of the source.

    Raises:
        InputError: There is no such table, or the query is more than one statement or one that does not select.
    """
    import sqlalchemy as sa

    if query is None or _TABLE.fullmatch(query):
        schema, _, table = (query or "").rpartition(".")
        inspector = sa.inspect(connection)
        tables = [*inspector.get_table_names(schema or None), *inspector.get_view_names(schema or None)]
        if query is None and len(tables) == 1:
            (table,) = tables
        if table not in tables:
            found = f"{len(tables)} tables" if query is None else f"no table `{query}`"
            shown = ", ".join(sorted(tables)[:10]) + (", ..." if len(tables) > 10 else "")
            raise InputError(url, found, f"one of {shown or 'them'}", "Set `query` to a table, or to SELECT ... FROM ...")
        quoted = connection.dialect.identifier_preparer.quote_identifier
        return f"SELECT * FROM {'.'.join(quoted(part) for part in (schema, table) if part)}", table
    bare = _QUOTED.sub("''", query).strip().removesuffix(";")
    if ";" in bare or not _SELECT.match(bare):
        raise InputError(url, "a `query` of another kind", "a table, or one SELECT statement", "Correct `query`.")
    return query.strip().removesuffix(";"), "query"


def _names(url: str, names: Sequence[str]) -> Sequence[str]:
    """The names of the columns, none of them twice.

    Raises:
        InputError: A name is empty or repeated, or there are too many.
    """
    check_columns(url, len(names))
    wrong = next((name for name in names if not name or names.count(name) > 1), None)
    if wrong is not None:
        raise InputError(
            url, f"two columns named `{wrong}`", "distinct names", f"Name one otherwise in `query`: {wrong} AS other."
        )
    return names


def _plain(url: str, column: str, value: Any) -> Any:
    """A value as JSON has it.

    Raises:
        InputError: It is bytes, or of a type that only this database has.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, Decimal):
        return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, UUID | dt.timedelta):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(url, column, item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(url, column, item) for key, item in value.items()}
    kind = "bytes" if isinstance(value, bytes | bytearray | memoryview) else f"values of the type {type(value).__name__}"
    todo = f"Leave it out of `query`, or convert it there: CAST({column} AS TEXT)."
    raise InputError(f"{url}, column `{column}`", kind, "text, numbers, times, or JSON of these", todo)
