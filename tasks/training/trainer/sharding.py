"""A base model in parts, one on each device (FSDP2), for models that no single device holds.

transformers shards while it loads: each process reads its own part of every weight, and gathers one layer at a time while it
computes with it. The adapter, its gradients and its optimizer stay whole on every device, as in plain data parallelism.
Checkpoints and the finished adapter are therefore the same files as without sharding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import ConfigError, TrainingError

_ADAPTER = "lora_"


def loading_options(plan: TrainingPlan) -> dict[str, Any]:
    """The options with which :func:`~tasks.modeling.loading.load_base` loads this process's part; none without sharding.

    Raises:
        ConfigError: The device is the CPU and the machine has a GPU, onto which transformers would put the parts.
    """
    if plan.sharding == "none":
        return {}
    if plan.device == "cpu" and torch.cuda.is_available():
        raise ConfigError(
            f"training.{plan.method}.device",
            "sharding over CPU processes on a machine with a GPU",
            "parts on the devices that train",
            "Set `device` to cuda, or hide the GPUs (`CUDA_VISIBLE_DEVICES=`).",
        )
    return {"distributed_config": DistributedConfig(fsdp_size=plan.num_processes)}


def held_share(model: Any) -> float:
    """The share of the base model's weights that this process holds between steps, with or without an adapter on it."""
    base = [weight for name, weight in model.named_parameters() if _ADAPTER not in name]
    held = sum(_local(weight).numel() for weight in base)
    return float(held / sum(weight.numel() for weight in base))


def check_sharded(model: Any, plan: TrainingPlan) -> None:
    """Refuses a model that is not sharded as planned: it would run out of memory, or waste it.

    Raises:
        TrainingError: This process holds more than its part of the base model.
    """
    if plan.sharding == "none":
        return
    share, expected = held_share(model), 1 / plan.num_processes
    # Each process holds whole rows of a weight, so that a part may be a little larger.
    if share > 1.1 * expected:
        raise TrainingError(
            f"training.{plan.method}.sharding",
            f"a process that holds {share:.1%} of the base model",
            f"about {expected:.1%}, one part in {plan.num_processes}",
            "transformers has no sharding plan for parts of this model; set `sharding` to none.",
        )


def own_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights that every process holds whole: the adapter on a sharded base, without the parts of that base."""
    return {name: weight for name, weight in model.state_dict().items() if not isinstance(weight, DTensor)}


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight as one tensor, gathered from all processes where each holds a part; all of them must call this."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _local(weight: torch.Tensor) -> torch.Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
