"""What `perennial status` says of several models, with every part there and with each part away."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Crashed
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from perennial.cli.app import app
from perennial.operations.fleet import FleetStatus, ModelStatus, Production, Question, read_fleet
from perennial.operations.fleet_page import prometheus_text, render_fleet, write_whole
from tasks.core.errors import ConfigError, PerennialError
from tests.support.fleet import deploy_retrains

NOW = dt.datetime(2026, 11, 30, 12, tzinfo=dt.UTC)
NOBODY = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}


def test_each_model_says_what_it_does_now(
    fleet_files: Path, fleet_server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy_retrains(fleet_files)
    desk = fleet_server.read_deployment_by_name("retrain/support-desk")
    fleet_server.update_deployment_schedule(desk.id, desk.schedules[0].id, active=False)
    for name in ("two-nights-ago", "the-night-run"):
        run = fleet_server.create_flow_run_from_deployment(desk.id, name=name)
        fleet_server.set_flow_run_state(run.id, Crashed(), force=True)
    read, read_runs = set[str](), SyncPrefectClient.read_flow_runs

    def noting(client: SyncPrefectClient, **options: Any) -> Any:
        runs = read_runs(client, **options)
        read.update(run.name for run in runs)
        return runs

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", noting)
    for paths in ([fleet_files], []):  # from the files, and from the server
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
    assert not (fleet_files.parent / "nowhere").exists(), "looking makes nothing"


def test_a_part_that_is_away_is_named_and_the_others_are_shown(
    fleet_files: Path, fleet_server: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fleet_files.parent / "store"
    dossier = next((store / "named" if (store / "named").exists() else store).rglob("dossier.json"))
    dossier.write_text('{"run_name": "of another version"}')
    with temporary_settings(NOBODY):
        (_, desk) = read_fleet([fleet_files], NOW).models
        with pytest.raises(PerennialError, match="Start the server"):
            read_fleet([], NOW)
    assert [note.partition(":")[0] for note in desk.away] == ["Prefect", "the store"]
    assert "another version" in desk.away[1]
    assert desk.champion == "1"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (new, desk) = read_fleet([fleet_files], NOW).models
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


def test_the_command_writes_all_forms(fleet_files: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perennial.operations.embedded.use_running_server", lambda: None)
    runner: Callable[..., Any] = CliRunner().invoke
    page, metrics = workplace / "fleet.html", workplace / "fleet.prom"
    with temporary_settings(NOBODY):
        result = runner(app, ["status", str(fleet_files), "--json", "--html", str(page), "--prometheus", str(metrics)])
        table = runner(app, ["status", str(fleet_files)])
    assert result.exit_code == table.exit_code == 0, result.output
    assert [one["name"] for one in json.loads(result.stdout)["models"]] == ["new-one", "support-desk"]
    assert page.read_text().startswith("\n<!doctype html>") or "<!doctype html>" in page.read_text()
    assert "perennial_model_parts_away" in metrics.read_text()
    assert "support-desk" in table.output
    assert "Traceback" not in table.output + result.output
    with pytest.raises(ConfigError, match="a folder that exists"):
        write_whole(workplace / "missing" / "fleet.prom", b"")
