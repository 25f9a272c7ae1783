"""A store, a registry and Prefect's records that were copied elsewhere serve every command as before."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.registry.aliases import promote
from tasks.registry.versions import describe
from tasks.tracking import connect
from tests.support.candidates import decide
from tests.support.object_store import object_store
from tests.support.workplace import Workplace, make_workplace

KEPT = "kept from an earlier run"
CONFIG = ("--config", "config.yaml")
EXPENSIVE = {"scrub", "audit_labels", "train_sft", "train_dpo"}
SETTINGS: dict[str, Any] = {
    "registry": {"approval": "always"},
    # A tiny model of random weights soon learns to expect the replies, but hardly to write them.
    "promotion": {"min_examples": 10, "primary_metric": "nll"},
}
WORD = ("--name", "Ann Lee", "--reason", "Read twenty replies.")


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path) -> Workplace:
    """A workplace whose first run asked a person, moved as a whole before anybody answered; the old place is gone."""
    before = make_workplace(tmp_path_factory.mktemp("before"), tiny_model_dir)
    before.write_config(**SETTINGS)
    before.run("retrain", *CONFIG)
    after = dataclasses.replace(before, folder=tmp_path_factory.mktemp("after"))
    for name in ("home", "store"):
        shutil.move(before.folder / name, after.folder / name)
    after.write_config(**SETTINGS)
    return after


def worked(summaries: dict[str, str]) -> set[str]:
    return {name for name, rest in summaries.items() if any(KEPT not in part for part in rest.split(" / "))}


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_works_where_the_store_was_moved_to(moved: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = moved.record()
    moved.run("store", "verify", *CONFIG)
    assert asked["run_name"] in moved.run("show", "latest", "--store", "store")

    told = moved.run("approve", asked["run_name"], "--store", "store", *WORD)
    assert "Champion of desk: version 1" in told
    record = moved.record()
    assert (record["promotion"]["promoted"], record["promotion"]["approval"]["by"]) == (True, "Ann Lee")

    again = moved.retrain()
    assert not worked(again) & EXPENSIVE, again

    # Another quarter: what is new is trained in the moved store, and the former champion comes back out of it.
    sft = {**moved.settings["training"]["sft"], "learning_rate": 0.002}
    moved.write_config(**SETTINGS, training={**moved.settings["training"], "sft": sft})
    assert "train_sft" in worked(moved.retrain())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved.folder / 'home' / 'mlflow' / 'mlflow.db'}")
    newer = describe(connect(), "desk", "2")
    assert promote(connect(), "desk", newer, decide(champion="1"), "2026-07-01T00:00:00+00:00").promoted
    assert "version 1" in moved.run("rollback", *CONFIG, "--reason", "as an exercise")
    assert "Would remove" in moved.run("prune", *CONFIG)
    moved.run("store", "verify", *CONFIG)
    # The registry's artifacts followed too: nothing was written to the place that is gone.
    assert not list(moved.folder.parent.glob("before*/*home*"))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_store_that_went_from_a_folder_to_a_bucket_serves_every_command(
    moved: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("moto", reason="the object store of the tests needs the package moto")
    with object_store() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        upload(moved.folder / "store", "perennial", environment)
        at = {"store": "s3://bucket/perennial"}
        moved.write_config(**at)
        moved.run("store", "verify", *CONFIG)
        again = moved.retrain()
        assert not worked(again) & EXPENSIVE, again
        moved.run("show", "latest", "--store", at["store"])
        assert "Would remove" in moved.run("prune", *CONFIG)

        # An empty bucket is a new store: nothing that only the old one holds counts as done, and the champion comes along.
        sft = {**moved.settings["training"]["sft"], "learning_rate": 0.003}
        moved.write_config(store="s3://bucket/elsewhere", training={**moved.settings["training"], "sft": sft})
        anew = moved.retrain()
        assert worked(anew) >= EXPENSIVE, anew
        assert "fetched from the registry" in anew["find_champion"]
        moved.run("store", "verify", *CONFIG)


def upload(folder: Path, prefix: str, environment: dict[str, str]) -> None:
    """Copies a store into the bucket as any tool would, file by file."""
    import boto3

    client: Any = boto3.session.Session().client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"])
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            client.upload_file(str(path), "bucket", f"{prefix}/{path.relative_to(folder).as_posix()}")
