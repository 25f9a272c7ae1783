"""What is logged arrives in MLflow, outages cost neither the run nor its records, and wrong settings say so."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks import tracking
from tasks.contracts.references import DatasetRef
from tasks.core.errors import ConfigError, RegistryError, RegistryOutageError
from tasks.core.storage import open_store
from tasks.tracking import connect, experiment_id, open_run


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One SQLite store for the module: creating its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def _settings(store_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store_uri)
    monkeypatch.delenv("PERENNIAL_HOME", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def dataset(tmp_path: Path) -> DatasetRef:
    return open_store(tmp_path / "store").write_rows([], kind="messages", parents=["a" * 64], passed=["ingested"])


def test_everything_logged_is_there_and_nothing_in_the_current_folder(dataset: DatasetRef, tmp_path: Path) -> None:
    with open_run("desk", "sft", {"stage": "sft"}) as run:
        run.log_params({"learning_rate": 1e-3, "epochs": 3})
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.5}, step=2)
        run.log_artifact_bytes("plots/loss.txt", b"a plot")
        run.set_tags({"adapter": "abc"})
        run.log_dataset(dataset, "training")
    client = connect()
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "sft"
    assert found.data.params == {"learning_rate": "0.001", "epochs": "3"}
    assert [(metric.step, metric.value) for metric in client.get_metric_history(run.run_id, "loss")] == [(1, 2.0), (2, 1.5)]
    assert found.data.tags["stage"] == "sft"
    assert found.data.tags["adapter"] == "abc"
    [recorded] = found.inputs.dataset_inputs
    assert json.loads(recorded.dataset.source)["sha256"] == dataset.sha256
    assert recorded.tags[0].value == "training"
    assert Path(client.download_artifacts(run.run_id, "plots/loss.txt")).read_bytes() == b"a plot"
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


def test_a_raising_block_fails_the_run_and_an_interrupt_kills_it() -> None:
    with pytest.raises(ZeroDivisionError), open_run("desk", "bad", {}) as failed:
        _ = 1 / 0
    with pytest.raises(KeyboardInterrupt), open_run("desk", "stopped", {}) as killed:
        raise KeyboardInterrupt
    assert connect().get_run(failed.run_id).info.status == "FAILED"
    assert connect().get_run(killed.run_id).info.status == "KILLED"


def test_a_continued_run_keeps_its_id_and_first_params(caplog: pytest.LogCaptureFixture) -> None:
    with open_run("desk", "sft", {}) as run:
        run.log_params({"micro_batch": 8})
    with open_run("desk", "sft", {"attempt": "2"}, run_id=run.run_id) as again, caplog.at_level(logging.WARNING):
        again.log_params({"micro_batch": 4, "accumulation": 2})
    found = connect().get_run(run.run_id)
    assert again.run_id == run.run_id
    assert found.info.status == "FINISHED"
    assert found.data.params == {"micro_batch": "8", "accumulation": "2"}
    assert "micro_batch" in caplog.text


class Unplugged:
    """Stands before a real client and fails every call, as MLflow's client does, while unplugged."""

    def __init__(self, client: Any) -> None:
        self.client, self.unplugged, self.refused = client, False, 0

    def __getattr__(self, name: str) -> Any:
        from mlflow.exceptions import MlflowException

        if self.unplugged:
            self.refused += 1
            raise MlflowException("Connection refused")  # INTERNAL_ERROR, as measured against a closed port
        return getattr(self.client, name)


def test_an_outage_delays_records_and_loses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Unplugged(connect())
    monkeypatch.setattr("tasks.tracking.runs.connect", lambda: client)
    with open_run("desk", "long", {}) as run:
        client.unplugged = True
        for step in range(100):
            run.log_metrics({"loss": 100.0 - step}, step=step)
        assert client.refused == 1  # the other 99 did not even try
        client.unplugged = False
        run.log_metrics({"loss": 0.0}, step=100)
    history = client.get_metric_history(run.run_id, "loss")
    assert [metric.step for metric in history] == list(range(101))
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_an_outage_to_the_end_costs_neither_the_work_nor_its_records(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dataset: DatasetRef
) -> None:
    client = Unplugged(connect())
    monkeypatch.setattr("tasks.tracking.runs.connect", lambda: client)
    with open_run("desk", "unlucky", {}) as run:
        client.unplugged = True
        run.log_params({"epochs": 3})
        run.log_metrics({"loss": 1.0}, step=4)
        run.log_dataset(dataset, "training")
        run.log_artifact_bytes("plots/loss.txt", b"a plot")
    assert [one for one in caplog.records if one.levelname == "ERROR" and run.run_id in one.getMessage()]
    assert client.client.get_run(run.run_id).info.status == "RUNNING"
    with pytest.raises(RegistryError), open_run("desk", "still away", {}):
        pass
    client.unplugged = False
    with open_run("desk", "the next one", {}):
        pass
    found = client.get_run(run.run_id)
    assert (found.info.status, found.data.params, found.data.metrics) == ("FINISHED", {"epochs": "3"}, {"loss": 1.0})
    assert found.info.end_time >= found.info.start_time
    assert len(found.inputs.dataset_inputs) == 1
    assert Path(client.download_artifacts(run.run_id, "plots/loss.txt")).read_bytes() == b"a plot"
    assert tracking.send_kept(client) == 0, "nothing is sent twice"


def test_a_kill_during_an_outage_costs_no_record_and_a_living_writer_keeps_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = Unplugged(connect())
    monkeypatch.setattr("tasks.tracking.runs.connect", lambda: client)
    with open_run("desk", "killed", {}) as run:
        client.unplugged = True
        run.log_metrics({"loss": 2.0}, step=1)
        run.log_metrics({"loss": 1.0}, step=2)
        (kept,) = tracking.unsent_folder().iterdir()
        client.unplugged = False
        assert tracking.send_kept(client) == 0, "its writer lives"
        whole = kept.read_bytes()
    assert not kept.exists(), "delivered by the run itself"
    kept.write_bytes(whole + b'{"kind": "metr')  # as a kill leaves it
    gone = kept.with_name("gone.jsonl")
    gone.write_text(whole.decode().replace(run.run_id, "0" * 32))
    assert tracking.send_kept(client) == 2
    assert [metric.value for metric in client.get_metric_history(run.run_id, "loss")] == [2.0, 1.0]
    assert "0" * 32 in caplog.text
    assert list(tracking.unsent_folder().iterdir()) == []


def test_what_belongs_to_another_server_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tracking.unsent_folder()
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text(json.dumps({"tracking_uri": "http://elsewhere", "run_id": "b" * 32}) + "\n")
    assert tracking.send_kept(connect()) == 0
    assert (folder / "a.jsonl").exists()


def test_a_refusal_is_an_error_at_once() -> None:
    with pytest.raises(RegistryError, match="INVALID_PARAMETER_VALUE"), open_run("desk", "bad name", {}) as run:
        run.log_metrics({"a metric; with\nforbidden characters": 1.0})


def test_a_closed_port_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_URI"), open_run("desk", "sft", {}):
        pass


@pytest.mark.parametrize("uri", ["", "sqlite:////proc/none/mlflow.db", "./mlruns"])
def test_an_unusable_uri_is_a_config_error(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError, match="MLFLOW_TRACKING_URI"), open_run("desk", "sft", {}):
        pass


def test_an_experiment_is_made_once() -> None:
    client = connect()
    assert experiment_id(client, "new one") == experiment_id(client, "new one")


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, tasks.tracking; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("enabled", ["true", "false"])
def test_the_machine_is_watched_while_a_run_is_open(monkeypatch: pytest.MonkeyPatch, enabled: str) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", enabled)
    with open_run("desk", "sft", {}, watch_machine=True) as run:
        time.sleep(0.3)
    found = connect().get_run(run.run_id).data.metrics
    assert ("system/cpu_utilization_percentage" in found) == (enabled == "true")
    assert ("system/system_memory_usage_megabytes" in found) == (enabled == "true")


def _failure(code: str, message: str, cause: BaseException | None = None) -> Exception:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    error = MlflowException(message, error_code=ErrorCode.Value(code))
    error.__context__ = cause
    return error


class OperationalError(Exception):
    """As SQLAlchemy and its drivers name it."""


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (_failure("INTERNAL_ERROR", "failed with exception", requests.ConnectionError("refused")), True),
        (_failure("INTERNAL_ERROR", "failed with timeout exception", requests.Timeout()), True),
        (_failure("TEMPORARILY_UNAVAILABLE", "the database is away"), True),
        (_failure("INTERNAL_ERROR", "API request to endpoint /x failed with error code 503 != 200."), True),
        (_failure("TEMPORARILY_UNAVAILABLE", "x", OperationalError("server closed the connection unexpectedly")), True),
        (_failure("BAD_REQUEST", "x", OperationalError("database is locked")), True),
        (_failure("INTERNAL_ERROR", "x", ConnectionResetError()), True),
        (_failure("TEMPORARILY_UNAVAILABLE", "x", OperationalError("attempt to write a readonly database")), False),
        (_failure("TEMPORARILY_UNAVAILABLE", "x", OperationalError("database or disk is full")), False),
        (_failure("TEMPORARILY_UNAVAILABLE", "x", OperationalError("password authentication failed for user")), False),
        (_failure("INTERNAL_ERROR", "x", PermissionError("the artifacts' folder")), False),
        (_failure("INTERNAL_ERROR", "x", FileNotFoundError("model")), False),
        (_failure("INTERNAL_ERROR", "API request to endpoint /x failed with error code 500 != 200."), False),
        (_failure("PERMISSION_DENIED", "not for you"), False),
        (_failure("RESOURCE_DOES_NOT_EXIST", "gone"), False),
    ],
)
def test_only_a_server_that_does_not_answer_is_an_outage(error: Exception, away: bool) -> None:
    with pytest.raises(RegistryError) as told, tracking.registry_errors("registered model desk"):
        raise error
    assert isinstance(told.value, RegistryOutageError) is away
