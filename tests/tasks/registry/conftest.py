"""One real MLflow store on SQLite for the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tasks.core.storage import Store, open_store
from tasks.tracking import connect


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite store whose tables exist: making them takes seconds."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('registry')}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        connect()
    return uri


@pytest.fixture
def client(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    return connect()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A registered model of the test's own."""
    return "".join(character if character.isalnum() else "-" for character in request.node.name)[:90].strip("-")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")
