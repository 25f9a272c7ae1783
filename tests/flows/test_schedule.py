"""The quarterly deployment on a real server: deployed twice, scheduled once. Freely resolved versions of Prefect's own
dependencies give a server that looks healthy and never schedules a run; this is what the caps in pyproject.toml are for.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from perennial.operations import embedded
from perennial.operations.doctor import examine
from tests.support.asking import ask
from tests.support.installation import POOLS, installation

ROOT = Path(__file__).parents[2]


def perennial(*arguments: str, api: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "perennial", *arguments],
        cwd=ROOT,
        env={**os.environ, "PREFECT_API_URL": api},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


@pytest.mark.slow
@pytest.mark.usefixtures("own_home")
def test_the_quarterly_run_is_scheduled_and_deploying_again_adds_nothing() -> None:
    with embedded.prefect_api(print) as api:
        first, second, third = (perennial("deploy", *more, api=api) for more in ([], [], ["--gpus", "2"]))
        assert {line.split()[0] for line in first.splitlines()} == {"created"}
        assert {line[:9] for line in second.splitlines()} == {"as it was"}, second
        assert [line for line in third.splitlines() if not line.startswith("as it was")] == [
            "changed   concurrency limit gpu-slots: 2"
        ]
        deployments = ask("/deployments/filter", {})
        names = {deployment["name"] for deployment in deployments}
        cpu = {"quarterly", "on-demand", "retrain-on-alert", "prepare-dataset", "check-production", "promote", "rollback"}
        assert names == cpu | {"prune", "watch-rollout"} | {"train-adapter", "prompting-baselines", "benchmark-models"}
        quarterly = next(deployment for deployment in deployments if deployment["name"] == "quarterly")
        assert len(quarterly["schedules"]) == 1
        upcoming = upcoming_runs(quarterly["id"])
        schedules = {one.found: one.status for one in examine(None) if one.check == "schedule"}
    assert upcoming, "the server scheduled no run within two minutes"
    assert schedules["quarterly: 1 active"] == "ok"
    assert schedules["check-production: deployed as inactive"] == "note"
    next_run = min(datetime.fromisoformat(run["expected_start_time"]) for run in upcoming)
    assert (next_run.month % 3, next_run.day, next_run.hour, next_run.minute) == (1, 1, 2, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_deploys_at_once_beside_workers_that_start_end_alike(tmp_path: Path) -> None:
    """On PostgreSQL, where writers do not wait for one another as on SQLite."""
    config = {"name": "desk", "store": str(tmp_path / "store"), "examples": {"path": "rows.jsonl"}}
    with installation(tmp_path, "prefect", "mlflow") as place, ThreadPoolExecutor(8) as threads:
        path = str(place.deployments(config))
        workers = [threads.submit(place.start, pool) for pool in POOLS]
        commands = [threads.submit(place.perennial, "deploy", "--file", path) for _ in range(4)]
        said = [line for command in commands for line in command.result().splitlines()]
        for worker in workers:
            worker.result()
        assert {line[:9].strip() for line in said} <= {"created", "changed", "as it was"}
        again = place.perennial("deploy", "--file", path)
        assert {line[:9] for line in again.splitlines()} == {"as it was"}, again
        names = [found["name"] for found in place.ask("automations/filter", {})]
        assert sorted(names) == ["perennial: crashed runs", "perennial: dead runs"]
        deployments = place.ask("deployments/filter", {})
        assert len(deployments) == 12
        assert all(len({one["slug"] for one in found["schedules"]}) == len(found["schedules"]) for found in deployments)


def upcoming_runs(deployment_id: str) -> list[dict[str, Any]]:
    """The scheduled runs of a deployment; the scheduler's loop wakes once a minute."""
    query = {"flow_runs": {"deployment_id": {"any_": [deployment_id]}, "state": {"type": {"any_": ["SCHEDULED"]}}}}
    for _ in range(120):
        runs: list[dict[str, Any]] = ask("/flow_runs/filter", query)
        if runs:
            return runs
        time.sleep(1)
    return []
