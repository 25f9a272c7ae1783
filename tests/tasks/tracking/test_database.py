"""MLflow's database in a file: a full disk, and a file that is none, are one error; a first start is never half done."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.core.errors import ConfigError
from tasks.tracking import connect, experiment_id

_ROOT = Path(__file__).resolve().parents[3]

_CONNECT = """
import resource, sys
from tasks import tracking
from tasks.core.errors import PerennialError
import mlflow.store.db.utils
if len(sys.argv) > 1:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
try:
    with tracking.open_run("experiment", "run", {}):
        print("opened")
except PerennialError as error:
    print(type(error).__name__, error)
"""


def run(path: Path, *arguments: str) -> list[str]:
    """What a first touch of the database prints, in a process of its own."""
    measured = ("COV_CORE", "COVERAGE_")  # coverage would write its data into the full disk
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(measured)},
        "PYTHONPATH": str(_ROOT),
        "MLFLOW_TRACKING_URI": f"sqlite:///{path}",
        "PERENNIAL_HOME": str(path.parent),
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    done = subprocess.run(
        [sys.executable, "-c", _CONNECT, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    return (done.stdout + done.stderr).strip().splitlines()


def test_a_disk_that_fills_at_the_first_touch_is_one_error_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    for limit in (0, 300_000):
        said = run(path, str(limit))
        assert len(said) == 1, said
        assert said[0].startswith(f"StoreError MLflow's database {path}: found ")
        assert not list(tmp_path.glob("mlflow.db*"))
    assert run(path)[-1] == "opened", "with room again, nothing stands in the way"


def no_database(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def cut_short(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (id TEXT)")
        connection.executemany("INSERT INTO runs VALUES (?)", [("x" * 100,)] * 1_000)
    connection.close()
    with path.open("r+b") as file:
        file.truncate(5_000)


def half_made(path: Path) -> None:
    """What an earlier release left when the disk was full: tables without the columns that later steps add."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE metrics (step INTEGER)")
        connection.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    connection.close()


def folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [no_database, cut_short, half_made, folder])
def test_a_file_that_is_no_usable_database_is_one_error(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "mlflow.db"
    make(path)
    said = run(path)
    assert len(said) == 1, said
    assert said[0].startswith(f"StoreError MLflow's database {path}: found ")
    assert "Check the disk's free space" in said[0]


def test_a_folder_that_cannot_be_made_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"):
        connect()


def test_a_kill_while_it_is_made_leaves_no_database(tmp_path: Path) -> None:
    code = "import os, mlflow.store.db.utils as u\n"
    code += "u._upgrade_db = lambda engine: os.kill(os.getpid(), 9)\n"
    path = tmp_path / "mlflow.db"
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{path}"}
    done = subprocess.run(
        [sys.executable, "-c", code + "from tasks.tracking import connect\nconnect()"], env=environment, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert not path.exists()
    assert list(tmp_path.glob("mlflow.db.making*")), "which the next one removes"


def test_two_first_touches_at_once_make_one_database(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{path}"}
    code = "from tasks.tracking import connect\nprint(len(connect().search_experiments()))"
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in started] == ["1", "1"]


def test_a_database_in_use_is_opened_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'deep' / 'mlflow.db'}")
    made = experiment_id(connect(), "kept")
    before = (tmp_path / "deep" / "mlflow.db").stat().st_ino
    assert experiment_id(connect(), "kept") == made
    assert (tmp_path / "deep" / "mlflow.db").stat().st_ino == before
