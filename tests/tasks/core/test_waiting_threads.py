"""Threads of numerical libraries sleep while they wait, in every process that works for this project."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import WAITING_THREADS
from tasks.training.launch.process import ENVIRONMENT

ROOT = Path(__file__).parents[3]
# Two threads meet sixty times while the second of them cannot run: both may use one core alone.
MEETINGS = """
import os
import {module}
import torch
os.sched_setaffinity(0, {{next(iter(os.sched_getaffinity(0)))}})
torch.set_num_threads(2)
x = torch.ones(200_000)
for _ in range(60):
    x.add_(1.0)
"""


def clean() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in (*WAITING_THREADS, "OMP_NUM_THREADS")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    "module", ["tasks.core.storage", "flows.retrain", "perennial.cli.app", "tasks.training.launch.process"]
)
def test_whatever_is_imported_first_says_how_threads_wait(module: str) -> None:
    program = (
        f"import {module}, os, sys; from tasks import WAITING_THREADS as w; sys.exit(any(os.environ[n] != w[n] for n in w))"
    )
    subprocess.run([sys.executable, "-c", program], env=clean(), check=True)


@pytest.mark.parametrize("module", ["flows.retrain", "perennial.cli.app", "tasks.labels.task", "tasks.benchmark.task"])
def test_no_numerical_library_is_loaded_before(module: str) -> None:
    program = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("numpy", "torch", "scipy", "sklearn"):
            assert "tasks" in sys.modules, f"{name} was loaded before tasks"
sys.meta_path.insert(0, Watch())
import """
    subprocess.run([sys.executable, "-c", program + module], env=clean(), check=True)


def test_what_an_operator_sets_stays() -> None:
    program = "import tasks, os; print(os.environ['OMP_WAIT_POLICY'])"
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean() | {"OMP_WAIT_POLICY": "ACTIVE"}, capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == "ACTIVE"


def test_trainers_wait_in_the_same_way() -> None:
    assert WAITING_THREADS.items() <= ENVIRONMENT.items()


def test_waiting_takes_less_than_spinning() -> None:
    def seconds(environment: dict[str, str]) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", MEETINGS.format(module="tasks")], env=environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert seconds(clean()) < seconds(clean() | {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "30000000"})
