"""The prune flow lists by default, removes when told to, and not while a run is at work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running
from typer.testing import CliRunner

from flows.cli import app
from flows.config import RetrainConfig
from flows.prune import prune
from flows.rollback import rollback
from tasks.errors import PerennialError
from tasks.pruning.listing import read_items
from tasks.storage import open_store
from tasks.tracking import connect

NOW = 1.7e9
"""Seconds since 1970; long ago."""


def config_of(folder: Path) -> RetrainConfig:
    return RetrainConfig.model_validate(
        {"name": "pruned-desk", "store": str(folder / "store"), "examples": {"path": str(folder / "rows.jsonl")}}
    )


@pytest.mark.usefixtures("embedded_home")
def test_it_lists_then_refuses_while_a_run_is_open_then_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    connect().create_registered_model("pruned-desk")
    store = open_store(tmp_path / "store")
    old, kept = (store.write_rows([], kind="messages", parents=[letter * 64]) for letter in "ab")
    store.write_pointer("benchmarks/pruned-desk", kept)
    store.write_named("work/sft-1/checkpoint/weights", b"0" * 5000)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (NOW, NOW))
    listed = prune(config_of(tmp_path))
    assert not listed.removed
    assert {kind for kind, _, _ in listed.totals} == {"data set", "work folder"}
    assert [one.name.rpartition("/")[2] for one in read_items(store, listed)] == ["sft-1", old.sha256]
    assert store.holds(old)

    with get_client(sync_client=True) as client:
        busy = client.create_flow_run(rollback, name="at-work", parameters={}, state=Running())
        with pytest.raises(PerennialError, match="at-work"):
            prune(config_of(tmp_path), remove=True)
        assert store.holds(old)
        client.delete_flow_run(busy.id)
    removed = prune(config_of(tmp_path), remove=True)
    assert removed.removed
    assert not store.holds(old)
    assert store.holds(kept)
    assert not (tmp_path / "store" / "work" / "sft-1").exists()
    assert prune(config_of(tmp_path)).num_items == 0


@pytest.mark.usefixtures("embedded_home")
def test_the_command_lists_with_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "config.yaml").write_text(f"{{name: desk, store: {tmp_path}/store, examples: {{path: rows.jsonl}}}}")
    open_store(tmp_path / "store").write_named("work/sft-1/weights", b"0" * 5_000_000)
    os.utime(tmp_path / "store" / "work" / "sft-1" / "weights", (NOW, NOW))
    result = CliRunner().invoke(app, ["prune", "--config", str(tmp_path / "config.yaml")])
    assert result.exit_code == 0, result.output
    assert "Would remove 1 things, 5.0 MB" in result.output
    assert (tmp_path / "store" / "work" / "sft-1").exists()
    shutil.rmtree(tmp_path / "store")
