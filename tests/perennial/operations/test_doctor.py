"""Each of ten planted faults is found, named, and comes with what to do; a healthy machine has none."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentCreate, DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.schedules import CronSchedule
from typer.testing import CliRunner

from flows.support.config import RetrainConfig
from perennial.cli.app import app
from perennial.operations import doctor
from perennial.operations.deployment import SCHEDULES, code_version
from perennial.operations.doctor import Finding, examine
from tasks.alerts.queue import AlertQueue
from tasks.contracts.alerts import Alert
from tasks.core import paging
from tests.support.hostile import ordinary_lines


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
        ("PII key", {"prepare": {"pii": {"operator": "hash", "key_env": "NO_SUCH_KEY"}}}),
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
    assert [finding.check for finding in faults(settings())] == ["disk", "store"]


def test_what_it_calls_ok_was_opened(settings: Callable[..., RetrainConfig], workplace: Path, tiny_model_dir: Path) -> None:
    assert any("5 rows of" in finding.found for finding in examine(settings()) if finding.check == "data")
    (workplace / "wrong.jsonl").write_text('{"a": 1}\n')
    shutil.copytree(tiny_model_dir, workplace / "empty", ignore=shutil.ignore_patterns("*.safetensors"))
    found = faults(
        settings(
            examples={"path": str(workplace / "wrong.jsonl")},
            training={"base_model": {"source": str(workplace / "empty")}, "sft": {"report_to": ["no_such_tracker"]}},
        )
    )
    assert [finding.check for finding in found] == ["data", "trackers", "base model"]
    shutil.copytree(tiny_model_dir, workplace / "mute", ignore=shutil.ignore_patterns("*token*", "*.jinja"))
    (mute,) = faults(settings(training={"base_model": {"source": str(workplace / "mute")}}))
    assert "a tokenizer that transformers cannot load" in mute.found
    assert all(finding.todo for finding in found)


def test_an_unsupported_version_is_found(settings: Callable[..., RetrainConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.999" if name == "peft" else real(name))
    (fault,) = faults(settings())
    assert "peft 0.999" in fault.found


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
    assert "is missing" in found["crashed runs", "fault"]
    assert ("deployed", "fault") in found
    assert ("clock", "ok") in found


@pytest.fixture
def deployed(embedded_home: Path) -> Iterator[Callable[..., Any]]:
    """Makes deployments as `perennial deploy` would, on the session's server; they are gone afterwards."""
    made = []
    with get_client(sync_client=True) as client:

        def make(name: str, *, active: bool, as_deployed: bool, version: str | None = None) -> Any:
            cron = CronSchedule(cron="20 * * * *", timezone="UTC")
            body = DeploymentCreate(
                flow_id=client.create_flow_from_name("scheduled-for-doctor"),
                name=name,
                version=version or code_version(),
                schedules=[DeploymentScheduleCreate(slug="hourly", schedule=cron, active=active)],
                labels={SCHEDULES: json.dumps({"hourly": as_deployed})},
            )
            client.request("POST", "/deployments/", json=body.model_dump(mode="json", exclude_unset=True))
            made.append(f"scheduled-for-doctor/{name}")
            return client.read_deployment_by_name(made[-1])

        yield make
        for name in made:
            client.delete_deployment(client.read_deployment_by_name(name).id)


def schedules() -> dict[str, Finding]:
    return {one.found.split()[0].strip(":"): one for one in examine(None) if one.check == "schedule"}


def test_a_schedule_that_was_deployed_off_is_no_fault_and_one_turned_off_since_is(deployed: Callable[..., Any]) -> None:
    deployed("check-production", active=False, as_deployed=False)
    deployed("every-quarter", active=True, as_deployed=True)
    deployed("every-month", active=False, as_deployed=True)
    found = schedules()
    assert found["check-production"].status == "note"
    assert "its production log and set `active: true`" in found["check-production"].todo
    assert found["every-quarter"].status == "ok"
    assert found["every-month"].status == "fault", "nobody deployed it like that"


def test_more_deployments_than_one_page_are_all_looked_at(
    deployed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 3)
    for number in range(8):
        deployed(f"of-many-{number}", active=number != 7, as_deployed=True)
    found = {name: one.status for name, one in schedules().items() if name.startswith("of-many")}
    assert found == {f"of-many-{number}": "ok" if number != 7 else "fault" for number in range(8)}


def test_what_it_says_to_do_about_a_paused_deployment_helps(deployed: Callable[..., Any]) -> None:
    made = deployed("halted", active=True, as_deployed=True)
    with get_client(sync_client=True) as client:
        client.update_deployment(made.id, DeploymentUpdate(paused=True))
        fault = schedules()["halted"]
        assert (fault.status, fault.todo.split()[:2]) == ("fault", ["prefect", "api"])
        client.request(*fault.todo.split()[2:4])
        assert schedules()["halted"].status == "ok"


@pytest.mark.slow
def test_the_commands_that_it_names_are_commands_that_help(deployed: Callable[..., Any]) -> None:
    halted = deployed("halted", active=True, as_deployed=True)
    silent = deployed("silent", active=False, as_deployed=True)
    with get_client(sync_client=True) as client:
        client.update_deployment(halted.id, DeploymentUpdate(paused=True))
        for one in (halted, silent):
            command = schedules()[one.name].todo
            subprocess.run([sys.executable, "-m", *shlex.split(command)], check=True, timeout=300)
            assert schedules()[one.name].status == "ok"


SECRET = "s3cr3t/w+rd"


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("MLFLOW_TRACKING_URI", f"http://mlflow:{SECRET}@127.0.0.1:9"),
        ("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://mlflow:{SECRET}@127.0.0.1:9/mlflow?sslpassword={SECRET}"),
        ("MLFLOW_TRACKING_URI", f"nonsense://mlflow:{SECRET}@host/db"),
        ("PREFECT_API_URL", f"http://prefect:{SECRET}@127.0.0.1:9/api"),
        ("PREFECT_API_URL", f"http://127.0.0.1:9/api?token={SECRET}"),
    ],
)
def test_no_password_of_an_address_is_shown(
    settings: Callable[..., RetrainConfig], monkeypatch: pytest.MonkeyPatch, variable: str, address: str
) -> None:
    monkeypatch.setenv(variable, address)
    found = list(examine(settings()))
    check = "MLflow" if variable.startswith("MLFLOW") else "Prefect"
    assert [one.status for one in found if one.check == check] == ["fault"]
    assert SECRET not in str(found)
    assert "w+rd" not in str(found)


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


def test_what_is_particular_about_the_base_model_is_told(settings: Callable[..., RetrainConfig]) -> None:
    pytest.importorskip("torch")
    found = [one.found for one in examine(settings()) if one.check == "base model"]
    for start in (
        "size: 0.1 M",
        "architecture: LlamaForCausalLM",
        "attention: ",
        "template: system text",
        "special tokens: ",
    ):
        assert any(line.startswith(start) for line in found), found


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"base_model": {"chat_template": "{{ raise_exception('no') }}"}}, "refuses a conversation"),
        ({"sft": {"lora": {"target_modules": ["nowhere"]}}}, "nowhere"),
        ({"sft": {"lora": {"target_modules": ["lm_head"]}}}, "output"),
    ],
)
def test_a_base_model_that_cannot_be_trained_is_a_fault(
    settings: Callable[..., RetrainConfig], tiny_model_dir: Path, training: dict[str, Any], message: str
) -> None:
    pytest.importorskip("torch")
    training.setdefault("base_model", {})["source"] = str(tiny_model_dir)
    [fault] = [one for one in faults(settings(training=training)) if one.check == "base model"]
    assert message in fault.found
