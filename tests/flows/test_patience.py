"""MLflow is away for seconds: a stage waits and goes on; what MLflow refuses fails at once."""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from prefect import Task, flow

from perennial.operations import embedded
from tasks.core.errors import RegistryError, RegistryOutageError
from tasks.core.processes import start_guarded, stop_group
from tasks.core.stage import stage
from tasks.registry import task as registry_stages
from tasks.registry.versions import aliases_of
from tasks.tracking import connect, registry_errors


def test_every_stage_of_the_registry_waits_for_an_mlflow_that_is_away() -> None:
    hasty = [stage.name for stage in vars(registry_stages).values() if isinstance(stage, Task) and not stage.retries]
    assert not hasty


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("embedded_home")
def test_a_stage_waits_for_mlflow_and_never_for_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = embedded.free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    attempts: list[str] = []

    @stage(cached=False, patient=True)
    def look(name: str) -> dict[str, str]:
        attempts.append(name)
        with registry_errors("registered model"):
            return aliases_of(connect(), name) if name != "refused" else connect().get_run("0" * 32)

    @flow(flow_run_name="looks")
    def looks(name: str) -> Any:
        return look(name)

    arguments = [
        "server",
        "--backend-store-uri",
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    started: list[subprocess.Popen[bytes]] = []

    def come_back() -> None:
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI")
        with (tmp_path / "log").open("ab") as log:
            started.append(
                start_guarded("mlflow", arguments, environment=environment, with_children=True, stdout=log, stderr=log)
            )
        threading.Event().wait(300)  # a guarded child dies with the thread that started it

    threading.Thread(target=come_back, daemon=True).start()
    try:
        assert looks("desk") == {}
        assert len(attempts) > 1, "it was away at first"
        attempts.clear()
        with pytest.raises(RegistryError) as refused:
            looks("refused")
        assert not isinstance(refused.value, RegistryOutageError)
        assert attempts == ["refused"]
    finally:
        stop_group(started[0])
