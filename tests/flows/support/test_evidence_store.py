"""A run that waited for a person finds its evidence where its model's deployment says the store is now, or acts not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from flows.support.evidence_store import open_evidence_store
from tasks.core.errors import IntegrityError
from tasks.core.storage import run_store
from tests.support.evidence import make_evidence


@flow(name="retrain")
def stand_in(config: dict[str, str]) -> None:
    """Has the name that deployments are looked up by."""


def deploy(name: str, store: Path) -> None:
    with get_client(sync_client=True) as client:
        client.create_deployment(
            client.create_flow(stand_in), name, parameters={"config": {"name": "support-desk", "store": str(store)}}
        )


@pytest.mark.usefixtures("embedded_home")
def test_a_store_that_moved_is_found_through_the_deployment(tmp_path: Path) -> None:
    evidence = make_evidence(tmp_path / "before")
    assert open_evidence_store(evidence, str(tmp_path / "before")).local_path == tmp_path / "before"
    shutil.move(tmp_path / "before", tmp_path / "after")
    with pytest.raises(IntegrityError, match="`perennial store verify`"):
        open_evidence_store(evidence, str(tmp_path / "before"))
    assert not (tmp_path / "before").exists(), "looking makes no store"

    deploy("elsewhere", tmp_path / "empty")
    deploy("support-desk", tmp_path / "after")
    assert open_evidence_store(evidence, str(tmp_path / "before")).local_path == tmp_path / "after"
    assert run_store().local_path == tmp_path / "after"

    # Half a restore is no restore: one lost table, and nothing acts.
    lost = evidence.examples.labels.issues
    run_store().remove(f"objects/{lost.sha256[:2]}/{lost.sha256}")
    with pytest.raises(IntegrityError, match="1 objects of its evidence missing"):
        open_evidence_store(evidence, str(tmp_path / "before"))
