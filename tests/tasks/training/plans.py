"""Plans that the planner itself makes for known models and devices."""

from __future__ import annotations

from dataclasses import replace

from tasks.contracts.training import TrainingPlan
from tasks.modeling.profile import BaseProfile
from tasks.modeling.shape import ModelShape
from tasks.training.config import SftConfig
from tasks.training.plan.hardware import Hardware
from tasks.training.plan.planning import Workload, make_plan

LLAMA_8B = ModelShape(8_030_261_248, 32, 4096, 14336, 128_256, 32, 8, 128, tied_embeddings=False)
SMOLLM = ModelShape(134_515_008, 30, 576, 1536, 49_152, 9, 3, 64)
# What PEFT makes of the default settings: rank 16 on every projection.
NUM_TRAINABLE = {LLAMA_8B.hidden_size: 41_943_040, SMOLLM.hidden_size: 4_884_480}
GPU = Hardware("cuda", "test", 1, 80 * 10**9, supports_bfloat16=True)
NEW_GPU = replace(GPU, supports_packed_attention=True, supports_liger_kernel=True)
CPU = Hardware("cpu", "test", 1, 16 * 10**9, supports_bfloat16=False)


def plan_for(
    shape: ModelShape = SMOLLM, hardware: Hardware = CPU, lengths: tuple[int, ...] = (100,) * 320, **config: object
) -> TrainingPlan:
    settings = SftConfig(**config)  # type: ignore[arg-type]
    workload = Workload(lengths=lengths, num_trained_tokens=sum(lengths) // 2, num_truncated_rows=0)
    num_trainable = shape.num_parameters if settings.lora is None else NUM_TRAINABLE[shape.hidden_size]
    return make_plan(BaseProfile(shape=shape), workload, hardware, settings, method="sft", num_trainable=num_trainable)


def hour_long(device: str = "cuda", name: str = "NVIDIA H200", num_processes: int = 2) -> TrainingPlan:
    """A plan of one hour."""
    return plan_for().model_copy(
        update={"device": device, "device_name": name, "num_processes": num_processes, "estimated_seconds": 3600.0}
    )
