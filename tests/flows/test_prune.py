"""The prune flow lists by default, removes when told to, and not while a run is at work."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.states import Running
from typer.testing import CliRunner

from flows.prune import prune
from flows.rollback import rollback
from flows.support.config import RetrainConfig
from perennial.cli.app import app
from tasks.core.errors import PerennialError, RegistryError
from tasks.core.storage import Store, open_store
from tasks.pruning.listing import read_items
from tasks.registry.store_origin import record_registry
from tasks.tracking import connect

NOW = 1.7e9
"""Seconds since 1970; long ago."""


def register_from(store: Store) -> None:
    """What a registration does first: the model is made, and the store notes in which registry."""
    client = connect()
    client.create_registered_model("pruned-desk")
    record_registry(client, "pruned-desk", store)


def config_of(folder: Path) -> RetrainConfig:
    return RetrainConfig.model_validate(
        {"name": "pruned-desk", "store": str(folder / "store"), "examples": {"path": str(folder / "rows.jsonl")}}
    )


@pytest.mark.usefixtures("embedded_home")
def test_it_lists_then_refuses_while_a_run_is_open_then_removes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    store = open_store(tmp_path / "store")
    register_from(store)
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
def test_a_registry_that_the_store_does_not_belong_to_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with MLFLOW_TRACKING_URI unset: an empty registry needs nothing, and the champion's adapter would go."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'own.db'}")
    store = Store(tmp_path / "store")
    old = store.write_rows([], kind="messages", parents=["a" * 64])
    store.write_named("work/sft-1/weights", b"0" * 5000)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (NOW, NOW))
    with pytest.raises(RegistryError, match="no version was registered from this store yet"):
        prune(config_of(tmp_path), remove=True)
    register_from(store)
    assert prune(config_of(tmp_path)).note == ""

    for case in ("empty", "same-name"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / case}.db")
        if case == "same-name":
            connect().create_registered_model("pruned-desk")
        with pytest.raises(RegistryError, match="no model pruned-desk, or another one of that name"):
            prune(config_of(tmp_path), remove=True)
        listed = prune(config_of(tmp_path))
        assert [kind for kind, _, _ in listed.totals] == ["work folder"], "what no version can need"
        assert "no model pruned-desk" in listed.note
    # A second registry that registers from the same store: now neither knows all that is needed.
    record_registry(connect(), "pruned-desk", store)
    for uri in ("same-name", "own"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / uri}.db")
        with pytest.raises(RegistryError, match="registered from this store in 2 registries"):
            prune(config_of(tmp_path), remove=True)
    assert store.holds(old)
    assert (tmp_path / "store" / "work" / "sft-1").exists()


@pytest.mark.usefixtures("embedded_home")
def test_a_registry_whose_database_was_moved_is_still_the_stores_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    register_from(Store(tmp_path / "store"))
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "restored.db")
    shutil.copytree(tmp_path / "store", tmp_path / "elsewhere" / "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'restored.db'}")
    assert prune(config_of(tmp_path / "elsewhere"), remove=True).removed


@pytest.mark.usefixtures("embedded_home")
def test_the_command_lists_with_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "config.yaml").write_text(f"{{name: desk, store: {tmp_path}/store, examples: {{path: rows.jsonl}}}}")
    open_store(tmp_path / "store").write_named("work/sft-1/weights", b"0" * 5_000_000)
    os.utime(tmp_path / "store" / "work" / "sft-1" / "weights", (NOW, NOW))
    result = CliRunner().invoke(app, ["prune", "--config", str(tmp_path / "config.yaml")])
    assert result.exit_code == 0, result.output
    assert "Would remove 1 items, 5.0 MB" in result.output
    assert (tmp_path / "store" / "work" / "sft-1").exists()
    shutil.rmtree(tmp_path / "store")
