"""What `perennial status` says of several models, with every part there and with each part away."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from perennial.cli.app import app
from perennial.operations.deployment import deploy
from perennial.operations.fleet import FleetStatus, ModelStatus, Production, Question, read_fleet
from perennial.operations.fleet_page import prometheus_text, render_fleet, write_whole
from perennial.operations.model_files import deployments_of
from tasks.contracts.registry import Approval, ChampionEvent
from tasks.core.errors import ConfigError, PerennialError
from tasks.core.storage import open_store
from tasks.dossier.summary import folder_of, latest_of
from tasks.registry.approval import APPROVAL
from tasks.registry.journal import begin_change, complete_pending_change
from tasks.tracking import connect
from tests.support.evidence import make_evidence

NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
CHECK = {"status": "violated", "violated": ["refusal", "drift"], "window_end": "2026-11-30T10:00:00Z"}
READINGS = [{"name": "domain", "signal": "drift", "violated": True}, {"name": "rate", "signal": "refusal", "violated": True}]
NOBODY = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
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
def server(embedded_home: Path) -> Iterator[SyncPrefectClient]:
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
            request = Approval(outcome="PROMOTE", champion_version="1", requested_at="2026-11-28", expires_at=expires)
            client.set_model_version_tag(name, version, APPROVAL, request.model_dump_json())
    with get_client(sync_client=True) as prefect:
        yield prefect
        for one in prefect.read_deployments():
            if "model:support-desk" in one.tags or "model:new-one" in one.tags:
                prefect.delete_deployment(one.id)


def deploy_retrains(folder: Path) -> None:
    entry = {"name": "{name}", "entrypoint": "flows/retrain.py:retrain", "parameters": {"config": "{config}"}, "form": []}
    entry |= {"schedules": "{schedules}", "work_pool": {"name": "fleet-status"}}
    (folder.parent / "template.yaml").write_text(yaml.safe_dump({"each_model": [entry]}))
    list(deploy(deployments_of([folder], folder.parent / "template.yaml"), "local", claims=False))


def test_each_model_says_what_it_does_now(folder: Path, server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy_retrains(folder)
    desk = server.read_deployment_by_name("retrain/support-desk")
    server.update_deployment_schedule(desk.id, desk.schedules[0].id, active=False)
    for name in ("two-nights-ago", "the-night-run"):
        run = server.create_flow_run_from_deployment(desk.id, name=name)
        server.set_flow_run_state(run.id, Crashed(), force=True)
    read, read_runs = set[str](), SyncPrefectClient.read_flow_runs

    def noting(client: SyncPrefectClient, **options: Any) -> Any:
        runs = read_runs(client, **options)
        read.update(run.name for run in runs)
        return runs

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", noting)
    for paths in ([folder], []):  # from the files, and from the server
        fleet = read_fleet(paths, NOW)
        new, desk_now = (one for one in fleet.models if one.name in ("support-desk", "new-one"))
        assert (desk_now.champion, desk_now.champion_since, desk_now.owner) == ("1", "2026-11-20T12:00:00+00:00", "desk")
        assert [one.version for one in desk_now.questions] == ["3"], "an expired request is not open"
        assert desk_now.decision is not None
        assert (desk_now.decision.label, bool(desk_now.decision.reason)) == ("Held", True)
        assert desk_now.production is not None
        assert (desk_now.production.status, desk_now.production.drift) == ("violated", ("domain",))
        assert desk_now.last_run == "Crashed (the-night-run)"
        assert desk_now.paused == ("schedule yearly of retrain/support-desk",)
        assert desk_now.away == ()
        assert new == ModelStatus(name="new-one", owner="desk", registered_model="fleet-new-one", next_run=new.next_run)
    assert "the-night-run" in read
    assert "two-nights-ago" not in read, "of the runs that ended the last one is read"
    assert not (folder.parent / "nowhere").exists(), "looking makes nothing"


def test_a_part_that_is_away_is_named_and_the_others_are_shown(
    folder: Path, server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = folder.parent / "store"
    dossier = next((store / "named" if (store / "named").exists() else store).rglob("dossier.json"))
    dossier.write_text('{"run_name": "of another version"}')
    with temporary_settings(NOBODY):
        (_, desk) = read_fleet([folder], NOW).models
        with pytest.raises(PerennialError, match="Start the server"):
            read_fleet([], NOW)
    assert [note.partition(":")[0] for note in desk.away] == ["Prefect", "the store"]
    assert "another version" in desk.away[1]
    assert desk.champion == "1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (new, desk) = read_fleet([folder], NOW).models
    assert [note.partition(":")[0] for note in desk.away] == ["MLflow", "the store"]
    assert [note.partition(":")[0] for note in new.away] == ["MLflow"]
    page = render_fleet(FleetStatus(written_at=NOW.isoformat(), models=(new, desk))).decode()
    assert "not readable" in page


def many(number: int = 30) -> FleetStatus:
    """Models in all states, with names that a page must escape."""

    def model(index: int) -> ModelStatus:
        question = Question(version="4", requested_at="2026-11-29", expires_at=f"2026-12-0{index % 3 + 1}T00:00:00+00:00")
        status = ("healthy", "violated", "insufficient")[index % 3]
        signals = ("refusal",) if status == "violated" else ()
        return ModelStatus(
            name=f"model-{index:02}",
            owner="<b>law & order</b>",
            champion=str(index) if index % 4 else None,
            champion_since="2026-10-01T00:00:00+00:00" if index % 4 else None,
            questions=(question,) if index % 5 == 0 else (),
            next_run="2027-01-01T02:00:00+00:00",
            last_run="Failed (night)" if index % 7 == 0 else "Completed (night)",
            production=Production(status=status, violated=signals, drift=(), window_end="2026-11-30T10:00:00+00:00"),
            away=("MLflow: no response",) if index == 29 else (),
        )

    return FleetStatus(written_at=NOW.isoformat(), models=tuple(model(index) for index in range(number)))


def test_the_page_is_self_contained_and_names_every_model() -> None:
    page = render_fleet(many()).decode()
    assert all(f"model-{index:02}" in page for index in range(30))
    assert "<b>law" not in page
    assert not re.search(r"(?:src|href)=\"https?:", page)
    assert "Needs a person" in page
    assert "Nothing to do" in render_fleet(FleetStatus(written_at=NOW.isoformat(), models=(ModelStatus(name="a"),))).decode()


def test_the_metrics_are_read_by_prometheus_and_leave_out_what_is_not_known() -> None:
    families = {one.name: one for one in text_string_to_metric_families(prometheus_text(many()).decode())}

    def values(name: str) -> dict[str, float]:
        return {sample.labels["model"]: sample.value for sample in families[f"perennial_model_{name}"].samples}

    assert len(values("next_run_timestamp_seconds")) == 30
    assert values("open_questions")["model-05"] == 1
    assert "model-29" not in values("open_questions"), "what MLflow would say is not zero"
    assert values("parts_away")["model-29"] == 1
    assert values("last_run_failed")["model-07"] == 1
    assert "model-04" not in values("champion_since_timestamp_seconds")
    assert families["perennial_fleet_written_timestamp_seconds"].samples[0].value == NOW.timestamp()


def test_the_command_writes_all_forms(folder: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.operations.embedded.use_running_server", lambda: None)
    runner: Callable[..., Any] = CliRunner().invoke
    page, metrics = workplace / "fleet.html", workplace / "fleet.prom"
    with temporary_settings(NOBODY):
        result = runner(app, ["status", str(folder), "--json", "--html", str(page), "--prometheus", str(metrics)])
        table = runner(app, ["status", str(folder)])
    assert result.exit_code == table.exit_code == 0, result.output
    assert [one["name"] for one in json.loads(result.stdout)["models"]] == ["new-one", "support-desk"]
    assert page.read_text().startswith("\n<!doctype html>") or "<!doctype html>" in page.read_text()
    assert "perennial_model_parts_away" in metrics.read_text()
    assert "support-desk" in table.output
    assert "Traceback" not in table.output + result.output
    with pytest.raises(ConfigError, match="a folder that exists"):
        write_whole(workplace / "missing" / "fleet.prom", b"")
