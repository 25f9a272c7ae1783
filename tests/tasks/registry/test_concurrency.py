"""Several processes promote, approve and roll back, some killed: one champion, one previous, one unbroken history."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from perennial.operations import embedded
from tasks.core.processes import start_guarded, stop_group
from tasks.registry import RegistryConfig
from tasks.registry.journal import champion_events, complete_pending_change
from tasks.registry.task import claim_for
from tasks.tracking import connect
from tests.support.postgres import running_postgres

NUM_VERSIONS, NUM_PROCESSES, NUM_ATTEMPTS, NUM_KILLS = 12, 4, 50, 2


@pytest.fixture(scope="module")
def promotion_lock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Prefect server, which holds the lock, for this file."""
    before = os.environ.copy()
    for variable in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"):
        os.environ.pop(variable, None)
    os.environ["PERENNIAL_HOME"] = str(tmp_path_factory.mktemp("perennial"))
    embedded.prepare_environment()
    try:
        with embedded.prefect_api(lambda line: None):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def mlflow_on(database: str, folder: Path, embedded_uri: str) -> Iterator[str]:
    """MLflow as the embedded default has it, a bare SQLite file, or as a platform has it: a server over PostgreSQL."""
    if database == "sqlite":
        yield embedded_uri
        return
    with running_postgres("mlflow") as address:
        port, server_log = embedded.free_port(), folder / "mlflow.log"
        where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        store = ["--backend-store-uri", f"postgresql+psycopg2://{address}/mlflow", "--artifacts-destination", str(folder)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with server_log.open("ab") as log:
            command = ["server", *store, *where]
            server = start_guarded("mlflow", command, environment=environment, with_children=True, stdout=log, stderr=log)
        try:
            embedded.wait_until_healthy(f"http://127.0.0.1:{port}/health", server)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop_group(server)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("promotion_lock")
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_hundred_attempts_with_kills_leave_one_champion(
    database: str, mlflow_uri: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with mlflow_on(database, tmp_path, mlflow_uri) as uri:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        client = connect()
        claim_for(RegistryConfig(model_name=name), name)  # as `perennial deploy` does: nobody else's model is written to
        for _ in range(NUM_VERSIONS):
            client.create_model_version(name, "s3://models/candidate")
        for alias, version in (("previous", "1"), ("champion", "2")):
            client.set_registered_model_alias(name, alias, version)

        processes = [_start(name, NUM_ATTEMPTS, seed) for seed in range(NUM_PROCESSES)]
        chance, killed = random.Random(0), []
        for kill in range(NUM_KILLS):
            time.sleep(chance.uniform(8.0, 14.0))
            victim = processes[kill]
            if victim.poll() is None:
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
            processes.append(_start(name, NUM_ATTEMPTS, 100 + kill))
        outcomes = [word for process in processes for word in process.communicate()[0].split()]
        failures = [process.pid for process in processes if process.returncode != 0]

        complete_pending_change(client, name)
        model = client.get_registered_model(name)
        events = champion_events(client, name)
    held = {alias: str(version) for alias, version in model.aliases.items()}
    assert killed
    assert failures == killed  # only the killed ones ended badly
    assert len(outcomes) >= 200
    assert len(events) >= 20  # refusals are normal, but the processes did get somewhere
    assert {event.by for event in events} == {None, "Ann"}
    assert held["champion"] == events[-1].version
    assert held["previous"] == events[-1].replaced
    assert all(later.replaced == earlier.version for earlier, later in itertools.pairwise(events))
    assert "perennial.intent" not in model.tags


def _start(name: str, num_attempts: int, seed: int) -> subprocess.Popen[str]:
    arguments = [name, str(NUM_VERSIONS), str(num_attempts), str(seed)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.registry.promoter", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
