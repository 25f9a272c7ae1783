"""Fixtures for the whole suite."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings

# Spinning OpenMP threads of parallel test runs cost more than they bring on a small machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name, _value in {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}.items():
    os.environ.setdefault(_name, _value)

# The same examples every time, so that a red run is the change's doing; `make fuzz` draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("new", deadline=None)
settings.load_profile("same")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those with most at the top, so that no process waits for a long one at the end."""
    num_slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -num_slow[item.path])


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny pretrained Llama and its ChatML tokenizer, in Hugging Face format."""
    from tests.support.tiny_model import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def embedded_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The embedded folder, with its environment set and Prefect's server running; flows called in a test use it."""
    from prefect.context import refresh_global_settings_context

    from perennial.operations import embedded

    folder = tmp_path_factory.mktemp("perennial")
    try:
        with patch.dict(os.environ):  # never another mapping in its place: libraries keep the one that they found
            _point_at(folder)
            with embedded.prefect_api(lambda line: None):
                yield folder
    finally:
        refresh_global_settings_context()


@pytest.fixture
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    """A console on which no line wraps; it takes its width from the environment only where it is made."""
    from perennial.cli.shared import console

    monkeypatch.setattr(console, "_width", 240)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with an embedded home of its own; the environment is as before afterwards."""
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ, {"PERENNIAL_HOME": str(tmp_path / "home")}):
        yield tmp_path


@pytest.fixture
def own_home(tmp_path: Path) -> Iterator[Path]:
    """A folder whose embedded home no server runs over yet, with its environment set: for tests that start their own."""
    from prefect.context import refresh_global_settings_context

    with patch.dict(os.environ):
        _point_at(tmp_path / "home")
        yield tmp_path
    refresh_global_settings_context()


def _point_at(home: Path) -> None:
    """Sets the environment for an embedded home, and forgets every server that was configured."""
    from perennial.operations import embedded

    for name in list(os.environ):
        if name.startswith("PREFECT_") or name in ("MLFLOW_TRACKING_URI", "MLFLOW_DEFAULT_ARTIFACT_ROOT"):
            del os.environ[name]
    os.environ["PERENNIAL_HOME"] = str(home)
    embedded.prepare_environment()
