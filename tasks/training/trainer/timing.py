"""The time that a training will take, from one timed step before it begins."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import psutil
import torch

from tasks.contracts.training import TrainingPlan
from tasks.training.examples import Pair, Rendered
from tasks.training.plan.forecasting import measure_flops, training_speed
from tasks.training.plan.hardware import find_hardware
from tasks.training.plan.planning import with_time
from tasks.training.trainer.batches import columns_of
from tasks.training.trainer.rows import Rows

_PROBE_TOKENS_ON_CPU = 256
# A plan that takes less than this share of the free memory is not tried out: no estimate has been so far off.
_ROOMY_SHARE = 0.5


def with_measured_time(plan: TrainingPlan, trainer: Any, rows: Rows) -> TrainingPlan:
    """The plan with its duration, from one timed forward and backward pass; no weight and no random state changes.

    The longest rows go first, so that a micro-batch that does not fit is found now and not an hour later. On a CPU, where
    that takes many seconds, they are tried only when the plan needs a large part of the free memory.
    """
    if plan.method == "grpo":  # the length of the replies is not known before they are generated
        speed = training_speed(plan.num_parameters, plan.device, measure_flops(plan.device), plan.method)
        return with_time(plan, speed, 0, _seconds_since_start())
    on_cpu = plan.device == "cpu"
    ordered = sorted(rows.train, key=len)
    middle = len(ordered) // 2
    count = plan.micro_batch_size
    if on_cpu:
        count = max(1, min(count, _PROBE_TOKENS_ON_CPU // len(ordered[middle])))
    typical = ordered[max(0, middle - count // 2) :][:count]
    roomy = on_cpu and sum(plan.memory_bytes.values()) < _ROOMY_SHARE * find_hardware("cpu").room_bytes
    first = typical[:1] if roomy else ordered[-plan.micro_batch_size :]
    if plan.packing and not on_cpu:
        typical = _fill(ordered[middle:] + ordered[:middle], count * plan.max_length_tokens)
        first = _fill(ordered[::-1], count * plan.max_length_tokens)
    with torch.random.fork_rng():
        _forward_and_backward(trainer, first)
        seconds = _forward_and_backward(trainer, typical)
    trainer.model.zero_grad(set_to_none=True)
    speed = sum(len(row) for row in typical) / seconds * plan.num_processes
    return with_time(plan, speed, rows.num_eval_tokens, _seconds_since_start())


def _fill(rows: Sequence[Any], num_tokens: int) -> list[Any]:
    """The first rows that together have at most ``num_tokens`` tokens."""
    chosen = []
    for row in rows:
        if len(row) <= num_tokens:
            chosen.append(row)
            num_tokens -= len(row)
    return chosen


def _seconds_since_start() -> float:
    """The time since this process began: reading, loading and timing are part of a training."""
    return time.time() - float(psutil.Process().create_time())


def _forward_and_backward(trainer: Any, rows: Sequence[Rendered]) -> float:
    features = [columns_of(row) for row in rows]
    if rows and isinstance(rows[0], Pair):
        features = [{**feature, "ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0} for feature in features]
    batch = {
        name: value.to(trainer.args.device) if isinstance(value, torch.Tensor) else value
        for name, value in trainer.data_collator(features).items()
    }
    began = time.perf_counter()
    with trainer.accelerator.autocast():
        trainer.compute_loss(trainer.model, batch).backward()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
