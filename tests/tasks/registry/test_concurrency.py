"""Several processes promote, approve and roll back, some killed: one champion, one previous, one unbroken history."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flows import embedded
from tasks.registry.aliases import history, settle

NUM_VERSIONS, NUM_PROCESSES, NUM_ATTEMPTS, NUM_KILLS = 12, 4, 50, 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_hundred_attempts_with_kills_leave_one_champion(
    client: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "perennial"))
    for variable in ("PREFECT_API_URL", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    client.create_registered_model(name)
    for _ in range(NUM_VERSIONS):
        client.create_model_version(name, "somewhere")
    for alias, version in (("previous", "1"), ("champion", "2")):
        client.set_registered_model_alias(name, alias, version)

    before = os.environ.copy()
    embedded.prepare_environment()
    try:
        with embedded.prefect_api(lambda line: None):
            processes = [_start(name, NUM_ATTEMPTS, seed) for seed in range(NUM_PROCESSES)]
            chance, log = random.Random(0), []
            for kill in range(NUM_KILLS):
                time.sleep(chance.uniform(8.0, 14.0))
                victim = processes[kill]
                if victim.poll() is None:
                    os.kill(victim.pid, signal.SIGKILL)
                    log.append(victim.pid)
                processes.append(_start(name, NUM_ATTEMPTS, 100 + kill))
            outcomes = [word for process in processes for word in process.communicate()[0].split()]
            failures = [process.pid for process in processes if process.returncode != 0]
    finally:
        os.environ.clear()
        os.environ.update(before)

    settle(client, name)
    held = {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}
    events = history(client, name)
    assert failures == log  # only the killed ones ended badly
    assert len(outcomes) >= 200
    assert len(events) >= 20  # refusals are normal, but the processes did get somewhere
    assert {event.by for event in events} == {None, "Ann"}
    assert held["champion"] == events[-1].version
    assert held["previous"] == events[-1].replaced
    assert all(later.replaced == earlier.version for earlier, later in itertools.pairwise(events))
    assert "perennial.intent" not in client.get_registered_model(name).tags


def _start(name: str, num_attempts: int, seed: int) -> subprocess.Popen[str]:
    arguments = [name, str(NUM_VERSIONS), str(num_attempts), str(seed)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.tasks.registry.promoter", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )
