"""Each of ten planted faults is found, named, and comes with what to do; a healthy machine has none."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, VariableCreate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from typer.testing import CliRunner

from flows import doctor
from flows.cli import app
from flows.config import RetrainConfig
from flows.deploying import DEPLOYED, code_version
from flows.doctor import Finding, examine
from tasks.alerts.queue import AlertQueue
from tasks.contracts import Alert
from tests.hostile import ordinary_lines


@pytest.fixture
def settings(workplace: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RetrainConfig]:
    """A healthy configuration, with changes."""
    (workplace / "rows.jsonl").write_text("\n".join(ordinary_lines(5)))
    (workplace / "home").mkdir()
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{workplace / 'mlflow.db'}")
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 1)

    def make(**changes: Any) -> RetrainConfig:
        healthy = {
            "name": "desk",
            "store": str(workplace / "store"),
            "examples": {"path": str(workplace / "rows.jsonl")},
            "training": {"base_model": {"source": str(tiny_model_dir)}},
        }
        return RetrainConfig.model_validate({**healthy, **changes})

    return make


def faults(settings: RetrainConfig) -> list[Finding]:
    return [finding for finding in examine(settings) if finding.status == "fault"]


def test_a_healthy_machine_has_no_fault(settings: Callable[..., RetrainConfig]) -> None:
    found = list(examine(settings()))
    assert [finding for finding in found if finding.status == "fault"] == []
    assert {"packages", "disk", "GPU", "data", "store", "base model", "Prefect", "MLflow"} <= {one.check for one in found}


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("data", {"examples": {"path": "absent.jsonl"}}),
        ("store", {"store": "/proc/store"}),
        ("base model", {"training": {"base_model": {"source": "./no-such-model"}}}),
        ("name model", {"prepare": {"pii": {"ner": {"model": "no_such_pipeline"}}}}),
        ("PII key", {"prepare": {"pii": {"operator": "surrogate", "key_env": "NO_SUCH_KEY"}}}),
        ("GPU", {"training": {"sft": {"device": "cuda"}}}),
    ],
)
def test_a_fault_in_the_configuration_is_found(
    settings: Callable[..., RetrainConfig], check: str, changes: dict[str, Any]
) -> None:
    if check == "GPU":
        pytest.importorskip("torch")
    found = faults(settings(**changes))
    assert check in {finding.check for finding in found}
    assert all(finding.todo for finding in found)


@pytest.mark.parametrize(("check", "variable"), [("Prefect", "PREFECT_API_URL"), ("MLflow", "MLFLOW_TRACKING_URI")])
def test_a_server_that_does_not_answer_is_found(
    settings: Callable[..., RetrainConfig], monkeypatch: pytest.MonkeyPatch, check: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    assert [finding.check for finding in faults(settings())] == [check]


def test_a_full_disk_is_found(settings: Callable[..., RetrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 10**18)
    assert [finding.check for finding in faults(settings())] == ["disk"]


def test_an_unsupported_version_is_found(settings: Callable[..., RetrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.999" if name == "fastapi" else real(name))
    (fault,) = faults(settings())
    assert "fastapi 0.999" in fault.found


@pytest.mark.usefixtures("embedded_home")
def test_a_pool_without_a_worker_and_a_paused_deployment_are_found() -> None:
    async def plant() -> None:
        async with get_client() as client:
            await client.create_work_pool(WorkPoolCreate(name="idle-pool", type="process"))
            flow_id = await client.create_flow_from_name("retrain-for-doctor")
            cron = CronSchedule(cron="0 2 1 1,4,7,10 *", timezone="UTC")
            for name, paused, pool in (("forgotten", True, "idle-pool"), ("homeless", False, None)):
                await client.create_deployment(
                    flow_id,
                    name=name,
                    paused=paused,
                    work_pool_name=pool,
                    schedules=[{"schedule": cron, "active": True}],
                    tags=["perennial"],
                )

    asyncio.run(plant())
    found = {(one.check, one.status): one.found for one in examine(None)}
    assert "idle-pool has no worker" in found["work pool", "fault"]
    assert "forgotten is paused" in found["schedule", "fault"]
    assert "there is no limit gpu-slots" in found["GPU slots", "fault"]
    assert "is missing" in found["dead runs", "fault"]
    assert "nobody says" in found["deployed", "fault"]
    assert ("clock", "ok") in found


@pytest.mark.usefixtures("embedded_home")
def test_a_schedule_that_was_deployed_off_is_no_fault_and_one_turned_off_since_is() -> None:
    async def plant(*active: str) -> None:
        async with get_client() as client:
            flow_id = await client.create_flow_from_name("scheduled-for-doctor")
            cron = CronSchedule(cron="20 * * * *", timezone="UTC")
            for name in ("check-production", "every-quarter"):
                schedule = DeploymentScheduleCreate(slug="hourly", schedule=cron, active=name in active)
                await client.create_deployment(flow_id, name=name, schedules=[schedule])
            told = {"version": code_version(), "profile": "local", "off": ["check-production/hourly"]}
            if await client.read_variable_by_name(DEPLOYED) is None:
                await client.create_variable(VariableCreate(name=DEPLOYED, value=told))

    def schedules() -> dict[str, Finding]:
        return {one.found.split()[0].strip(":"): one for one in examine(None) if one.check == "schedule"}

    asyncio.run(plant("every-quarter"))
    found = schedules()
    assert found["check-production"].status == "note"
    assert "off on purpose" in found["check-production"].found
    assert "name its production log and set `active: true`" in found["check-production"].todo
    assert found["every-quarter"].status == "ok"

    asyncio.run(plant("check-production"))
    found = schedules()
    assert found["check-production"].status == "ok"
    assert found["every-quarter"].status == "fault", "nobody deployed it like that"
    with get_client(sync_client=True) as client:
        client.delete_variable_by_name(DEPLOYED)


def test_the_command_says_what_to_do_and_fails(workplace: Path) -> None:
    (workplace / "config.yaml").write_text("{name: desk, store: store, examples: {path: absent.jsonl}}")
    result = CliRunner().invoke(app, ["doctor", "--config", "config.yaml"])
    assert result.exit_code == 1
    assert "absent.jsonl cannot be read" in result.output


def test_accepted_alerts_that_nobody_can_read_are_told(settings: Callable[..., RetrainConfig], workplace: Path) -> None:
    healthy = settings()
    assert "alert queue" not in {finding.check for finding in examine(healthy)}
    queue = AlertQueue(workplace / ".perennial" / "alerts.db", cooldown_seconds=60)
    times = {"starts_at": "2026-05-01T06:00Z", "window_start": "2026-05-01T00:00Z", "window_end": "2026-05-01T06:00Z"}
    queue.offer([Alert.model_validate({"fingerprint": "f", "model": "desk", "name": "a", "signal": "b", **times})], 0.0)
    assert [finding.status for finding in examine(healthy) if finding.check == "alert queue"] == ["ok"]
    queue._connection.execute("UPDATE alerts SET alert = '{}'")
    assert queue.due(1.0) == []
    (finding,) = faults(healthy)
    assert (finding.check, finding.found.split()[0]) == ("alert queue", "1")
    queue.close()
