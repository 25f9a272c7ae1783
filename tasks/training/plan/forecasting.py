"""The forecast that a person reads before the run: the trainer's own plan, with a time from a short measurement.

The trainer plans again, from the rows that the data stages left, and measures its own speed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from tasks.contracts.training import TrainingPlan
from tasks.core.rows import Row
from tasks.modeling.conversations import stop_token_ids
from tasks.modeling.loading import load_tokenizer
from tasks.modeling.profile import make_profile
from tasks.training.config import DpoConfig, GrpoConfig, KtoConfig, LoraSettings, SftConfig
from tasks.training.examples import render_rows, usable_rows
from tasks.training.plan import planning
from tasks.training.plan.adapters import count_trainable
from tasks.training.plan.hardware import Hardware, find_hardware

TRAINING_EFFICIENCY = {"cpu": 0.55, "cuda": 0.35, "cuda, packed": 0.55}
"""Share of a large matrix product's speed that training reaches. CPU: measured with 135M parameters on two AVX2 cores. CUDA:
what published LoRA runs of 7-8B models reach. Packed and with Liger's kernels, an 8B model on an H100 was measured at .61
(LoRA, sequences of 2048 tokens) and .52 (4-bit weights, 512 tokens)."""

STARTUP_SECONDS = 20.0
"""From the start of a trainer process to its first step: imports, tokens. Measured with 135M parameters on two cores; the
trainer's own plan counts the real time."""
LOADED_BYTES_PER_SECOND = 1.2e9
"""How fast weights reach the device: 16 GB took 13 s from memory to an H100."""


def forecast(
    base: Path,
    rows: Sequence[Row],
    config: SftConfig | DpoConfig | KtoConfig | GrpoConfig,
    *,
    lora: LoraSettings | None,
    hardware: Hardware,
    flops_per_second: float,
    num_eval_rows: int = 0,
) -> TrainingPlan:
    """The plan for training on ``rows`` as they are, with its estimated time.

    Args:
        base: Folder of the base model.
        rows: Canonical rows, of ``messages`` kind for SFT and GRPO, of ``preferences`` kind for DPO and KTO.
        config: The training's settings.
        lora: The adapter of SFT, which the other methods continue.
        hardware: What to plan for.
        flops_per_second: Of one device; see :func:`measure_flops`.
        num_eval_rows: Validation rows, assumed to be as long as the others.
    """
    tokenizer = load_tokenizer(base)
    rows, _ = usable_rows(tokenizer, rows, config.max_refused_share)
    rendered = render_rows(
        config.kind,
        tokenizer,
        rows,
        stops=stop_token_ids(tokenizer, None),
        max_length=config.max_length,
        max_new_tokens=config.max_completion_length if isinstance(config, GrpoConfig) else 0,
        learn=config.learn if isinstance(config, SftConfig) else "last",
    )
    workload = planning.Workload.of_rows(rendered, config)
    profile = make_profile(base)
    plan = planning.make_plan(
        profile,
        workload,
        hardware,
        config,
        method=config.kind,
        num_trainable=count_trainable(base, planning.effective_lora(config, lora)),
    )
    speed = training_speed(profile.shape.num_active_parameters, _kind(plan), flops_per_second, plan.method)
    mean_tokens = workload.num_tokens / max(1, len(workload.lengths))
    num_eval_tokens = round(mean_tokens * min(num_eval_rows, config.max_eval_rows))
    startup = STARTUP_SECONDS + plan.memory_bytes["weights"] / LOADED_BYTES_PER_SECOND
    # Processes on a CPU share its cores.
    return planning.with_time(plan, plan.num_devices * speed, num_eval_tokens, startup)


def _kind(plan: TrainingPlan) -> str:
    """The key of :data:`TRAINING_EFFICIENCY` that a plan is timed with."""
    return "cuda, packed" if plan.device == "cuda" and plan.packing and plan.liger_kernel else plan.device


def training_speed(num_parameters: int, kind: str, flops_per_second: float, method: str = "sft") -> float:
    """Real tokens a second of one device.

    ``kind`` is a key of :data:`TRAINING_EFFICIENCY`. With frozen base weights a token costs 2N forward and 2N backward;
    DPO's reference adds one forward pass; KTO's reference, and its KL term of model and reference, add three. GRPO generates
    its tokens first, one at a time: a forward pass at half the efficiency (measured on a CPU with 135M parameters).
    """
    flops_per_token = {"sft": 4, "dpo": 6, "kto": 10, "grpo": 8}[method] * num_parameters
    return TRAINING_EFFICIENCY[kind] * flops_per_second / flops_per_token


def measure_flops(device: str, *, size: int = 1024, seconds: float = 0.5) -> float:
    """Floating-point operations a second of a large matrix product, in the precision that training would use.

    On a CPU it is that of an idle machine: the time that its threads computed counts, not that in which other processes had
    the cores, so that an estimate does not depend on the load of the minute.
    """
    hardware = find_hardware(device)
    dtype = torch.bfloat16 if hardware.supports_bfloat16 else torch.float32
    if hardware.device == "cuda":
        size = 8192
    left = torch.ones(size, size, device=hardware.device, dtype=dtype)
    left @ left  # the first product loads libraries
    count, started, computed = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - started < seconds:
        left @ left
        if hardware.device == "cuda":
            torch.cuda.synchronize()
        count += 1
    on_cpu = hardware.device == "cpu"
    taken = (time.process_time() - computed) / torch.get_num_threads() if on_cpu else time.perf_counter() - started
    return 2 * size**3 * count / taken
