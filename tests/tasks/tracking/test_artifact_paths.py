"""An embedded MLflow database that was moved with its artifacts reads and writes where it is now."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from tasks.core.errors import StoreError
from tasks.tracking import connect, open_run
from tasks.tracking.artifact_paths import ARTIFACTS, artifact_root, follow_moved_artifacts


def test_artifacts_follow_the_database_and_those_of_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second folder's name begins like the first one's, and it holds a space and a percent sign.
    before, after = tmp_path / "home", tmp_path / "home of 100% Ada"
    before.mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{before / 'mlflow.db'}")
    with open_run("desk", "first", {}) as first:
        first.log_artifact_bytes("model/weights.txt", b"weights")
    client = connect()
    client.create_registered_model("desk")
    client.create_model_version("desk", f"{client.get_run(first.run_id).info.artifact_uri}/model", first.run_id)
    own = client.create_experiment("somebody-else", artifact_location=(tmp_path / "theirs" / ARTIFACTS / "deep").as_uri())

    shutil.move(before, after)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{after / 'mlflow.db'}")
    client = connect()
    assert Path(client.download_artifacts(first.run_id, "model/weights.txt")).read_bytes() == b"weights"
    version = client.get_model_version("desk", "1")
    assert version.source.startswith(artifact_root(after / "mlflow.db"))
    assert client.get_experiment(own).artifact_location == (tmp_path / "theirs" / ARTIFACTS / "deep").as_uri()
    with open_run("desk", "second", {}) as second:
        second.log_artifact_bytes("note.txt", b"here")
    assert client.get_run(second.run_id).info.artifact_uri.startswith(artifact_root(after / "mlflow.db"))
    assert not before.exists(), "nothing is written where the folder was"


def test_what_is_no_database_of_mlflow_is_left_alone_or_refused_by_name(tmp_path: Path) -> None:
    follow_moved_artifacts(tmp_path / "none.db")
    assert not (tmp_path / "none.db").exists()
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE experiments (artifact_location TEXT)")
    follow_moved_artifacts(tmp_path / "other.db")
    (tmp_path / "torn.db").write_bytes(b"SQLite format 3\x00" + b"torn" * 500)
    with pytest.raises(StoreError, match=r"torn\.db: found a database that SQLite cannot use"):
        follow_moved_artifacts(tmp_path / "torn.db")
