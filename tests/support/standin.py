"""A parent and a stage that use the hand-over as the retrain page does, without a model; deployed by test_gpu.py."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from prefect import flow, get_run_logger

from flows.support.gpu_pool import cancel_children, gpu_slot, on_gpu_pool
from tasks.contracts.training import SearchTrial
from tasks.core.errors import BudgetError
from tasks.core.results import CONTRACTS
from tasks.core.stage import stage as stage_decorator


@stage_decorator(cached=False)
def occupy(folder: str, mood: str) -> None:
    """Works on a GPU as its mood says."""
    Path(folder, f"{mood}.pid").write_text(str(os.getpid()))
    if mood == "dear":
        raise BudgetError("training.budget", "9 hours", "at most 3", "Raise it.")
    while mood == "endless":
        time.sleep(0.2)


@flow(name="stand-in-stage", persist_result=True, result_serializer=CONTRACTS, flow_run_name="stage-{mood}")
def stage(folder: str, mood: str) -> SearchTrial:
    """Leaves its process's number behind, then answers, fails or works for ever."""
    if mood == "shot" and not Path(folder, "shot.once").exists():
        Path(folder, "shot.once").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    with gpu_slot():
        occupy(folder, mood)
    return SearchTrial(outcome="complete", learning_rate=0.5, r=8)


@flow(name="stand-in-parent", on_cancellation=[cancel_children], on_crashed=[cancel_children])
def parent(folder: str, mood: str) -> None:
    """Hands the stage over and keeps what came back."""
    trial = on_gpu_pool(stage, folder, mood=mood)
    Path(folder, f"{mood}.json").write_text(trial.model_dump_json())


@flow(name="talkative", flow_run_name="talkative")
def talkative(folder: str) -> int:
    """Writes a log line ten times a second until three seconds after its worker has gone."""
    logger, num_lines = get_run_logger(), 0
    Path(folder, "begun").write_text(str(os.getpid()))
    while not Path(folder, "worker-is-gone").exists() or num_lines < 30:
        logger.info("line %d", num_lines)
        print("line", num_lines, flush=True)
        num_lines += 1 if Path(folder, "worker-is-gone").exists() else 0
        time.sleep(0.1)
    return num_lines
