"""Scrubbing in shards gives what scrubbing in one piece gives, to the byte, on threads and on Ray."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect import flow

from flows.scrub import scrub_dataset, task_runner
from tasks import pii
from tasks.contracts.preparation import ScrubReport
from tasks.contracts.references import DatasetRef
from tasks.core.storage import open_store
from tasks.pii.verify.canaries import make_canaries

WHOLE = pii.PiiConfig(mode="turbo", max_quarantined_share=1.0)


def row(name: str, text: str) -> dict[str, Any]:
    return {"id": name, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "Done."}]}


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    """Rows of which some can only be refused by looking at the others: a name found in one shard stands in another."""
    rows = [row(f"r{number:03}", canary.text) for number, canary in enumerate(make_canaries(60, 2))]
    rows += [row("sure", "My name is Ilse Quandt-Maiburg."), row("long", "x" * 2_000_000)]
    rows += [row(f"z{number}", f"ilse quandt-maiburg wrote {'again ' * number}") for number in range(3)]
    return open_store(tmp_path / "store").write_rows(rows, kind="messages", passed=["ingested"])


@flow
def scrub_flow(dataset: DatasetRef, settings: pii.PiiConfig) -> ScrubReport:
    return scrub_dataset(dataset, settings)


def same(left: ScrubReport, right: ScrubReport) -> bool:
    """Equal but for the time taken; the references carry the hashes of every row and finding."""
    return left.model_copy(update={"seconds": 0.0}) == right.model_copy(update={"seconds": 0.0})


@pytest.mark.usefixtures("embedded_home")
@pytest.mark.parametrize("rows_per_shard", [7, 64])
def test_shards_on_threads_give_the_same_bytes(dataset: DatasetRef, rows_per_shard: int) -> None:
    whole = pii.scrub.fn(dataset, WHOLE)
    assert whole.quarantine is not None
    assert same(scrub_flow(dataset, WHOLE.model_copy(update={"rows_per_shard": rows_per_shard})), whole)


@pytest.mark.usefixtures("embedded_home")
def test_small_data_is_one_stage(dataset: DatasetRef, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.scrub.scrub_in_shards", None)
    assert scrub_flow(dataset, WHOLE).num_rows_in == dataset.num_rows


@pytest.mark.slow
@pytest.mark.usefixtures("embedded_home")
def test_shards_on_ray_give_the_same_bytes(dataset: DatasetRef) -> None:
    pytest.importorskip("ray")
    settings = WHOLE.model_copy(update={"rows_per_shard": 20, "runner": "ray"})
    assert same(scrub_flow(dataset, settings), pii.scrub.fn(dataset, WHOLE))


STRANGER = "import ray, sys; ray.init(address=sys.argv[1]); print('inside', ray.get(ray.remote(lambda: 1).remote()))"


@pytest.mark.slow
def test_ray_on_this_machine_lets_nobody_in_without_its_token() -> None:
    ray = pytest.importorskip("ray")
    runner = task_runner(WHOLE.model_copy(update={"runner": "ray"}))
    context = ray.init(num_cpus=1, **runner.init_kwargs)  # type: ignore[attr-defined]
    try:
        address = context.address_info["gcs_address"]
        assert not context.dashboard_url
        bare = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64}):
            stranger = [sys.executable, "-c", STRANGER, address]
            done = subprocess.run(stranger, env=bare | token, capture_output=True, text=True, timeout=120)
            assert done.returncode != 0
            assert "inside" not in done.stdout
    finally:
        ray.shutdown()
