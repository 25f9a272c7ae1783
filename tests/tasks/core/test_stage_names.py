"""A stage has one name: its function's."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import cloudpickle
import pytest
from prefect import Task

import tasks.ingest
import tasks.training
from tasks.core.results import CONTRACTS

TASK_FILES = sorted((Path(__file__).parents[3] / "tasks").glob("*/task.py"))


@pytest.mark.parametrize("package", [path.parent.name for path in TASK_FILES])
def test_task_and_function_share_their_name(package: str) -> None:
    module = vars(import_module(f"tasks.{package}.task"))
    stages = {name: value for name, value in module.items() if isinstance(value, Task)}
    assert stages
    assert all(name == stage.name == stage.fn.__name__ for name, stage in stages.items())
    assert all(map(cloudpickle.dumps, stages.values())), "a task runner such as Ray pickles its stages"


def test_a_stage_is_a_prefect_task_with_results_in_json() -> None:
    for stage in (tasks.ingest.take_snapshot, tasks.training.train_sft):
        assert isinstance(stage, Task)
        assert (stage.persist_result, stage.result_serializer) == (True, CONTRACTS)
