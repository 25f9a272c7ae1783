"""Stores of every kind: a folder, an S3-compatible server on loopback, and this process's memory."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.core.storage import Store


@pytest.fixture(scope="session")
def bucket() -> Iterator[dict[str, str]]:
    """The environment in which ``s3://bucket`` is on a server on loopback."""
    for package in ("moto", "s3fs", "boto3"):
        pytest.importorskip(package, reason=f"{package} is not installed; the extra `dev` brings it")
    from tests.support.object_store import object_store

    with object_store() as environment:
        yield environment


@pytest.fixture(params=["folder", "bucket", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind; what is fetched from it goes to a home of the test's own."""
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    if request.param == "folder":
        return Store(tmp_path / "store")
    if request.param == "memory":
        return Store(f"memory://{uuid.uuid4().hex}/store")
    for name, value in request.getfixturevalue("bucket").items():
        monkeypatch.setenv(name, value)
    return Store(f"s3://bucket/{uuid.uuid4().hex}")
