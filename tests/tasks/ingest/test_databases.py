"""A table or query of a database is read as a file is; no password leaves the environment, and nothing is written."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from pydantic import ValidationError

from perennial.operations.initial import guess_settings
from tasks.core.errors import ConfigError, InputError, MissingDependencyError, PerennialError
from tasks.ingest.config import Ceilings, SourceConfig
from tasks.ingest.reading import read_configured, read_source
from tasks.ingest.snapshot import make_snapshot
from tests.support.postgres import running_postgres

ROWS = [(n, f"How do I reset device {n}? 100 %", f"Hold the button; wait {n} s.", "2026-03-01T10:00:00") for n in range(60)]


def make_database(file: Path, rows: Sequence[tuple[Any, ...]] = ROWS) -> str:
    """An SQLite file with a table of tickets; its address."""
    with sqlite3.connect(file) as connection:
        connection.execute("create table tickets (id integer primary key, question text, answer text, created_at text)")
        connection.executemany("insert into tickets (rowid, question, answer, created_at) values (?, ?, ?, ?)", rows)
    connection.close()
    return f"sqlite:///{file}"


def test_a_table_and_a_query_become_rows(tmp_path: Path) -> None:
    url = make_database(tmp_path / "desk.db")
    for query, count in (
        (None, 60),
        ("tickets", 60),
        ("SELECT * FROM tickets WHERE answer LIKE '%:%' OR id > 9 -- new;", 50),
    ):
        source = SourceConfig(path=url, query=query)
        result = make_snapshot(read_configured(source), source)
        assert (len(result.rows), result.input_format) == (count, "prompt_completion")
    assert result.rows[0]["created_at"] == "2026-03-01T10:00:00"


def test_the_same_rows_make_the_same_snapshot_in_any_order_and_others_do_not(tmp_path: Path) -> None:
    one = read_source(make_database(tmp_path / "one.db"))
    shuffled = random.Random(5).sample(ROWS, len(ROWS))
    other = read_source(make_database(tmp_path / "two.db", shuffled), query="SELECT * FROM tickets ORDER BY question")
    assert other.sha256 == one.sha256
    assert [record.fields for record in other.records] == [record.fields for record in one.records]
    assert read_source(make_database(tmp_path / "three.db", ROWS[1:])).sha256 != one.sha256


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("tikets", "no table `tikets`; expected one of tickets"),
        ("delete from tickets", "one SELECT"),
        ("with x as (select 1) delete from tickets", "fails"),
        ("select 1; drop table tickets", "one SELECT"),
        ("/* select */ update tickets set id = 1", "one SELECT"),
        ("select colour from tickets", "fails"),
        ("select id, question as id from tickets", "two columns named `id`"),
        ("select id, cast(answer as blob) as answer from tickets", "column `answer`: found bytes.*CAST"),
        ("select * from tickets where id < 0", "no row"),
    ],
)
def test_what_cannot_be_read_is_refused_and_nothing_is_changed(tmp_path: Path, query: str, words: str) -> None:
    url = make_database(tmp_path / "desk.db")
    before = hashlib.sha256((tmp_path / "desk.db").read_bytes()).hexdigest()
    with pytest.raises(InputError, match=words) as error:
        read_source(url, query=query)
    assert "Hold the button" not in str(error.value)
    assert error.value.__cause__ is None
    assert hashlib.sha256((tmp_path / "desk.db").read_bytes()).hexdigest() == before


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_source(f"sqlite:///{tmp_path}/absent.db")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ceiling", [{"max_records": 59}, {"max_bytes": 900}, {"max_record_characters": 50}])
def test_ceilings_hold_for_a_database(tmp_path: Path, ceiling: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(ceiling))):
        read_source(make_database(tmp_path / "desk.db"), ceilings=Ceilings(**ceiling))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:hunter2@host/db",
        "postgresql+psycopg2://ann:hunt/hunter2@x@host/db",
        "mysql://host/db?password=hunter2",
        "mssql+pyodbc:///?odbc_connect=DRIVER%3Dx%3BPWD%3Dhunter2",
        "snowflake://ann@account/db?token=hunter2&role=x",
    ],
)
def test_a_password_in_an_address_is_refused_and_never_shown(url: str) -> None:
    with pytest.raises(ConfigError, match="environment variable") as error:
        read_source(url)
    with pytest.raises(ValidationError, match="DB_PASSWORD") as fault:
        SourceConfig(path=url)
    for text in (str(error.value), str(fault.value), str(fault.value.errors(include_input=False))):
        assert "hunter2" not in text


def test_an_environment_variable_stands_for_the_password() -> None:
    url = "postgresql://ann:${DESK_PASSWORD}@127.0.0.1:1/db"
    assert SourceConfig(path=url).path == url
    with pytest.raises(ConfigError, match="DESK_PASSWORD"):
        read_source(url)
    with patch.dict(os.environ, {"DESK_PASSWORD": "p/w@hunter2"}), pytest.raises(InputError, match="account") as error:
        read_source(url)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "package"),
    [
        ("mysql://ann@host/db", r"pymysql.*mysql\+pymysql"),
        ("oracle://host/db", r"oracledb.*oracle\+oracledb"),
        ("snowflake://account/db", "snowflake-sqlalchemy"),
        ("mongodb://host/db", "dialect"),
    ],
)
def test_a_missing_driver_is_named(url: str, package: str) -> None:
    with pytest.raises(MissingDependencyError, match=f"{package}.*export"):
        read_source(url)


@pytest.mark.parametrize("url", ["postgresql+asyncpg://host/db", "sqlite://", "postgresql://[::/db", "sqlite:///:memory:"])
def test_an_address_that_leads_nowhere_is_explained(url: str) -> None:
    with pytest.raises(PerennialError):
        read_source(url)


def test_a_query_needs_a_database() -> None:
    with pytest.raises(ValidationError, match="query is for a database"):
        SourceConfig(path="rows.csv", query="tickets")


def test_init_reads_a_database(tmp_path: Path) -> None:
    guess = guess_settings(make_database(tmp_path / "desk.db"), "tickets")
    assert guess.settings["query"] == "tickets"


@pytest.mark.slow
def test_postgresql_gives_its_own_types_and_writes_nothing() -> None:
    import sqlalchemy as sa

    with running_postgres("desk") as address:
        url = f"postgresql+psycopg2://{address}/desk"
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            connection.exec_driver_sql(
                "create table t (id uuid default gen_random_uuid(), prompt text, completion text, price numeric, "
                "n numeric, created_at timestamptz default now(), tags text[] default '{a,b}', "
                'messages jsonb default \'[{"role": "user"}]\')'
            )
            rows = "select 'p' || i, 'c', 1.5, 2 from generate_series(1, 3000) i"
            connection.exec_driver_sql(f"insert into t (prompt, completion, price, n) {rows}")
        records = list(read_source(url, query="public.t").records)
        fields = records[0].fields
        assert len(records) == 3000
        assert (fields["price"], fields["n"], fields["tags"], fields["messages"]) == (1.5, 2, ["a", "b"], [{"role": "user"}])
        assert isinstance(fields["id"], str)
        assert "T" in fields["created_at"]
        for query in ("with gone as (delete from t returning *) select * from gone", "select nextval('no_such')", "absent"):
            with pytest.raises(InputError) as error:
                read_source(url, query=query)
            assert error.value.__cause__ is None
        assert len(read_source(url.replace("postgresql+psycopg2", "postgres")).records) == 3000
