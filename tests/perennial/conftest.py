"""Two models as files, with a store and a registry of one of them: for what looks at all models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client

from tasks.contracts.registry import Approval, ChampionEvent
from tasks.core.storage import open_store
from tasks.dossier.summary import folder_of, latest_of
from tasks.registry.approval import APPROVAL
from tasks.registry.journal import begin_change, complete_pending_change
from tasks.tracking import connect
from tests.support.evidence import make_evidence

CHECK = {"status": "violated", "violated": ["refusal", "drift"], "window_end": "2026-11-30T10:00:00Z"}
READINGS = [{"name": "domain", "signal": "drift", "violated": True}, {"name": "rate", "signal": "refusal", "violated": True}]


@pytest.fixture
def fleet_files(tmp_path: Path) -> Path:
    """Two models: one with a dossier and a check of production in its store, one that never ran."""
    models = tmp_path / "models"
    models.mkdir()
    evidence = make_evidence(tmp_path / "store", "HOLD", champion=True)
    store = open_store(tmp_path / "store")
    store.write_named(f"{folder_of(evidence.run_name)}/dossier.json", evidence.model_dump_json().encode())
    store.write_named(latest_of("support-desk"), evidence.run_name.encode())
    store.write_named("monitoring/support-desk/latest.json", json.dumps({**CHECK, "readings": READINGS}).encode())
    for name in ("support-desk", "new-one"):
        where = tmp_path / ("store" if name == "support-desk" else "nowhere")
        schedule = {"slug": "yearly", "cron": "0 2 1 1 *"}
        document = {"name": name, "store": str(where), "examples": {"path": "rows.jsonl"}}
        document["operate"] = {"owner": "desk", "schedules": [schedule]}
        document["registry"] = {"model_name": f"fleet-{name}"}
        (models / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return models


@pytest.fixture
def fleet_server(embedded_home: Path) -> Iterator[SyncPrefectClient]:
    """The session's Prefect and MLflow: a champion, an open request and one that has expired."""
    client, name = connect(), "fleet-support-desk"
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
        for _ in range(3):
            client.create_model_version(name, "somewhere")
        event = ChampionEvent(action="promote", version="1", replaced=None, reason="r", at="2026-11-20T12:00:00+00:00")
        begin_change(client, name, event)
        complete_pending_change(client, name)
        for version, expires in (("2", "2026-11-29T00:00:00+00:00"), ("3", "2026-12-02T00:00:00+00:00")):
            request = Approval(
                outcome="PROMOTE", champion_version="1", requested_at="2026-11-28T00:00:00+00:00", expires_at=expires
            )
            client.set_model_version_tag(name, version, APPROVAL, request.model_dump_json())
    with get_client(sync_client=True) as prefect:
        for one in prefect.read_deployments():  # other tests of this process leave models of the same name
            prefect.delete_deployment(one.id)
        yield prefect
        for one in prefect.read_deployments():
            if "model:support-desk" in one.tags or "model:new-one" in one.tags:
                prefect.delete_deployment(one.id)
