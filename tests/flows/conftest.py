"""A real Prefect server over SQLite for the whole session, in a folder of its own; nothing is written to the home folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.context import refresh_global_settings_context

from flows import embedded


@pytest.fixture(scope="session")
def embedded_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The embedded folder, with its environment set and Prefect's server running; flows called in a test use it."""
    folder = tmp_path_factory.mktemp("perennial")
    before = os.environ.copy()
    for name in list(os.environ):
        if name.startswith(("PREFECT_", "MLFLOW_")):
            del os.environ[name]
    os.environ["PERENNIAL_HOME"] = str(folder)
    embedded.prepare_environment()
    try:
        with embedded.prefect_api(lambda line: None):
            yield folder
    finally:
        os.environ.clear()
        os.environ.update(before)
        refresh_global_settings_context()
