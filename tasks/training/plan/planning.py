"""The plan of a training: steps, micro-batches, memory savings, time. Pure; no torch."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import ConfigError
from tasks.modeling.profile import BaseProfile
from tasks.modeling.shape import ModelShape
from tasks.training.config import GrpoConfig, LoraSettings, SftConfig, TrainerConfig
from tasks.training.examples import Prompt, Rendered
from tasks.training.plan.memory import estimate_memory

if TYPE_CHECKING:
    from tasks.training.plan.hardware import Hardware

PACKED_ATTENTION = "varlen"
"""The attention implementation for packed sequences; see :mod:`tasks.training.trainer.kernels`."""
MASKED_ATTENTION = ("sdpa", "eager")
"""The attention that separates packed rows by a mask, where the base model makes one."""
# Largest micro-batch on a CPU, in padded tokens: beyond it, intermediate results leave the caches and nothing is gained.
CPU_MICRO_BATCH_TOKENS = 1024
# The same on a GPU: 15.1, 15.8 and 15.9 thousand tokens/s were measured at 4, 6 and 8 thousand tokens of an 8B model on an
# H100 (4-bit weights, which are unpacked for each micro-batch: 11.9, and 15.6 at 12 thousand).
GPU_MICRO_BATCH_TOKENS = 12_288
# Packed sequences are not cut to meet the effective batch: the share by which a step may differ from it.
_PACKED_BATCH_TOLERANCE = 0.15
# Architectures whose layers Liger's kernels replace one for one, as the memory estimate counts them.
_LIGER_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# TRL's KTO cannot train on a single reply: its KL term needs a second one.
_SMALLEST_MICRO_BATCH = {"kto": 2}
# The cost of an evaluation as a share of a training pass over the same tokens, with frozen weights: a forward pass (2N FLOPs
# a token) of forward and backward (4N); KTO's evaluation omits the backward pass alone (2N of 10N).
_EVALUATION_SHARE = {"kto": 0.8}
_GPU_MEMORY_SHARE = 0.9
_CPU_MEMORY_SHARE = 0.7


@dataclass(frozen=True)
class Workload:
    """The rendered rows: tokens of each training row, how many of them are learned, how many rows were cut."""

    lengths: Sequence[int]
    num_trained_tokens: int
    num_truncated_rows: int

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(self.lengths)

    @classmethod
    def of_rows(cls, rows: Sequence[Rendered | Prompt], config: TrainerConfig, num_dropped: int = 0) -> Workload:
        """The workload of rendered rows; a GRPO prompt counts once for every reply that is generated to it.

        Args:
            rows: The rows to train on.
            config: The method's settings.
            num_dropped: Further rows that leave no room for a reply; they count as truncated.
        """
        times = config.num_generations if isinstance(config, GrpoConfig) else 1
        return cls(
            lengths=[len(row) for row in rows for _ in range(times)],
            num_trained_tokens=times * sum(row.num_learned_tokens for row in rows),
            num_truncated_rows=sum(row.truncated for row in rows) + num_dropped,
        )


@dataclass(frozen=True)
class _Memory:
    """The memory of one device, by number of rows in a micro-batch and by the savings that are applied."""

    shape: ModelShape
    num_trainable: int
    tokens_per_row: int
    precision: str
    device: str
    liger_kernel: bool
    num_shards: int
    limit_bytes: int

    def by_part(self, rows: int, savings: _Savings) -> dict[str, int]:
        return estimate_memory(
            self.shape,
            num_trainable=self.num_trainable,
            tokens=rows * self.tokens_per_row,
            precision=self.precision,
            quantization=savings.quantization,
            gradient_checkpointing=savings.gradient_checkpointing,
            device=self.device,
            liger_kernel=self.liger_kernel,
            num_shards=self.num_shards,
        )

    def fits(self, rows: int, savings: _Savings) -> bool:
        return sum(self.by_part(rows, savings).values()) <= self.limit_bytes


@dataclass(frozen=True)
class _Savings:
    """What trades speed for memory."""

    quantization: str
    gradient_checkpointing: bool


def make_plan(
    profile: BaseProfile,
    workload: Workload,
    hardware: Hardware,
    config: TrainerConfig,
    *,
    method: str,
    num_trainable: int,
) -> TrainingPlan:
    """The plan, without its time (see :func:`with_time`).

    The micro-batch is the largest that fits and divides the effective batch. Where not even one row fits, gradient
    checkpointing is tried first, then 4-bit weights.

    Args:
        profile: The base model's.
        workload: The rows.
        hardware: What to train on.
        config: The method's settings.
        method: Its name.
        num_trainable: Trainable parameters; all of the base model's without an adapter.

    Raises:
        ConfigError: The base model cannot be trained with the configured attention, packing or kernels.
    """
    shape = profile.shape
    num_processes = config.num_processes or max(1, hardware.num_devices)
    packing, attention = _attention(profile, hardware, config, method)
    memory = _Memory(
        shape=shape,
        num_trainable=num_trainable,
        tokens_per_row=config.max_length if packing else max(workload.lengths, default=0),
        precision=_precision(config, hardware),
        device=hardware.device,
        liger_kernel=_uses_liger_kernel(shape, hardware, config, method),
        num_shards=1 if config.sharding == "none" else num_processes,
        limit_bytes=_memory_limit(config, hardware),
    )
    savings = _choose_savings(memory, config)
    num_sequences = count_sequences(workload.lengths, config.max_length) if packing else len(workload.lengths)
    # Sequences of one step in one process; a fraction where the batch is counted in packed sequences.
    batch = math.ceil(config.effective_batch_size / num_processes)
    sequences_per_step = batch * num_sequences / len(workload.lengths) if packing else batch
    micro_batch = max(
        _choose_micro_batch(memory, savings, config, workload.lengths, sequences_per_step, packing, attention),
        _SMALLEST_MICRO_BATCH.get(method, 1),
    )
    accumulation = max(1, round(sequences_per_step / micro_batch))
    steps_per_epoch = max(1, math.ceil(num_sequences / (micro_batch * accumulation * num_processes)))
    return TrainingPlan(
        method=method,
        num_rows=len(workload.lengths),
        num_tokens=workload.num_tokens,
        num_trained_tokens=workload.num_trained_tokens,
        num_steps=config.max_steps or math.ceil(steps_per_epoch * config.num_train_epochs),
        micro_batch_size=micro_batch,
        accumulation_steps=accumulation,
        num_processes=num_processes,
        eval_steps=max(1, math.ceil(steps_per_epoch / config.evals_per_epoch)),
        max_length_tokens=config.max_length,
        num_truncated_rows=workload.num_truncated_rows,
        precision=memory.precision,
        device=hardware.device,
        device_name=hardware.name,
        num_parameters=shape.num_parameters,
        num_trainable_parameters=memory.num_trainable,
        memory_bytes=memory.by_part(micro_batch, savings),
        estimated_seconds=0.0,
        gradient_checkpointing=savings.gradient_checkpointing,
        packing=packing,
        num_sequences=num_sequences,
        quantization=savings.quantization,
        sharding=config.sharding,
        attn_implementation=attention,
        liger_kernel=memory.liger_kernel,
        notes=tuple(
            _notes(memory, savings, config, method, packing) + _notes_of_base(profile, hardware, config, method, packing)
        ),
    )


def _attention(profile: BaseProfile, hardware: Hardware, config: TrainerConfig, method: str) -> tuple[bool, str]:
    """Whether rows are packed, and the attention's name: as configured, or what the base model allows."""
    attention, has_kernel = config.attn_implementation, profile.packing == "kernel"
    if (attention == PACKED_ATTENTION and not has_kernel) or (attention == "sdpa" and profile.attention == "eager"):
        raise ConfigError(
            f"training.{method}.attn_implementation",
            f"`{attention}` for a {profile.shape.model_type} model"
            + (
                f": {profile.packing_note}"
                if attention == PACKED_ATTENTION
                else ", which transformers does not offer it for"
            ),
            "an attention that computes what the base model was trained with",
            f"Leave `attn_implementation` out (then it is `{profile.attention}`), or name another.",
        )
    if method != "sft":
        return False, attention or profile.attention
    packing = hardware.supports_packed_attention and has_kernel if config.packing == "auto" else config.packing
    if packing and profile.packing == "none":
        raise ConfigError(
            f"training.{method}.packing",
            f"true for a {profile.shape.model_type} model: {profile.packing_note}",
            "rows one by one",
            "Set `packing` to auto or false.",
        )
    by_kernel = packing and has_kernel and hardware.supports_packed_attention
    return packing, attention or (PACKED_ATTENTION if by_kernel else profile.attention)


def _notes_of_base(profile: BaseProfile, hardware: Hardware, config: TrainerConfig, method: str, packing: bool) -> list[str]:
    """What is done otherwise because of the base model."""
    unpacked = method == "sft" and config.packing == "auto" and hardware.supports_packed_attention and not packing
    notes = {
        f"rows are not packed: {profile.packing_note}": unpacked,
        "TRL's loss head, because the logits are scaled, capped or shifted": not profile.plain_logits,
    }
    return [note for note, holds in notes.items() if holds]


def _precision(config: TrainerConfig, hardware: Hardware) -> str:
    if config.precision != "auto":
        return config.precision
    return "bfloat16" if hardware.supports_bfloat16 else "float32"


def _memory_limit(config: TrainerConfig, hardware: Hardware) -> int:
    share = _GPU_MEMORY_SHARE if hardware.device == "cuda" else _CPU_MEMORY_SHARE
    return config.memory_limit_bytes or int(hardware.memory_bytes * share)


def _choose_savings(memory: _Memory, config: TrainerConfig) -> _Savings:
    """The first allowed savings with which one row fits, or the last ones."""
    has_adapter = memory.num_trainable < memory.shape.num_parameters
    may_quantize = config.quantization == "auto" and has_adapter and config.sharding == "none"
    quantizations = ["none", "nf4"] if may_quantize else ["none" if config.quantization == "auto" else config.quantization]
    checkpointings = [False, True] if config.gradient_checkpointing == "auto" else [config.gradient_checkpointing]
    choices = [_Savings(quantization, checkpointing) for quantization in quantizations for checkpointing in checkpointings]
    return next((savings for savings in choices if memory.fits(1, savings)), choices[-1])


def _choose_micro_batch(
    memory: _Memory,
    savings: _Savings,
    config: TrainerConfig,
    lengths: Sequence[int],
    sequences_per_step: float,
    packing: bool,
    attention: str,
) -> int:
    """Sequences of one forward pass: as configured, or as many as fit and keep the effective batch."""
    largest = max(1, round(sequences_per_step))
    if config.per_device_train_batch_size is not None:
        return min(config.per_device_train_batch_size, largest)
    if packing and attention in MASKED_ATTENTION:
        return 1  # this attention grows with the square of a flattened micro-batch
    typical = config.max_length if packing else max(1, _median(lengths))
    most_tokens = CPU_MICRO_BATCH_TOKENS if memory.device == "cpu" else GPU_MICRO_BATCH_TOKENS
    sizes = range(1, min(max(1, most_tokens // typical), largest) + 1)
    return max(
        (size for size in sizes if _keeps_batch(size, sequences_per_step, exact=not packing) and memory.fits(size, savings)),
        default=1,
    )


def _notes(memory: _Memory, savings: _Savings, config: TrainerConfig, method: str, packing: bool) -> list[str]:
    notes = {
        "by this estimate not even one row fits; training is tried anyway": not memory.fits(1, savings),
        "rows are packed into sequences of max_length": packing,
        "each pair counts as two rows, the chosen reply and the rejected one": method == "kto",
        "each prompt counts once for every reply generated to it, at the longest that it may be": method == "grpo",
        f"the base model is sharded into {memory.num_shards} parts, one on each device": config.sharding != "none",
        "4-bit weights, because 16-bit ones would not fit": savings.quantization == "nf4" and config.quantization == "auto",
    }
    return [note for note, holds in notes.items() if holds]


def count_sequences(lengths: Sequence[int], max_length: int) -> int:
    """How many sequences rows make when each goes into the fullest sequence that has room, the longest rows first.

    This is TRL's `bfd` packing: best fit, decreasing.
    """
    room: list[int] = []  # free tokens of every sequence that is not full, ascending
    num_sequences = 0
    for length in sorted((min(length, max_length) for length in lengths), reverse=True):
        place = bisect.bisect_left(room, length)
        if place == len(room):
            num_sequences += 1
            left = max_length - length
        else:
            left = room.pop(place) - length
        bisect.insort(room, left)
    return num_sequences


def _keeps_batch(micro_batch: int, batch: float, *, exact: bool) -> bool:
    """Whether whole micro-batches make up the batch; approximately, where it is counted in packed sequences."""
    total = micro_batch * max(1, round(batch / micro_batch))
    return total == batch if exact else abs(total - batch) <= _PACKED_BATCH_TOLERANCE * batch


def _uses_liger_kernel(shape: ModelShape, hardware: Hardware, config: TrainerConfig, method: str) -> bool:
    if config.use_liger_kernel == "auto":
        return hardware.supports_liger_kernel and shape.model_type in _LIGER_MODEL_TYPES
    if config.use_liger_kernel and not hardware.supports_liger_kernel:
        raise ConfigError(
            f"training.{method}.use_liger_kernel",
            f"no Liger kernels for {hardware.name}",
            "a CUDA device, the extra `gpu` installed and a C compiler on the machine",
            "Install `perennial-llm[gpu]` and gcc there, or set use_liger_kernel to auto.",
        )
    if config.use_liger_kernel and shape.model_type not in _LIGER_MODEL_TYPES:
        raise ConfigError(
            f"training.{method}.use_liger_kernel",
            f"a model of type {shape.model_type!r}",
            f"one of {', '.join(_LIGER_MODEL_TYPES)}",
            "Set use_liger_kernel to auto.",
        )
    return config.use_liger_kernel


def with_time(
    plan: TrainingPlan, tokens_per_second: float, num_eval_tokens: int = 0, startup_seconds: float = 0.0
) -> TrainingPlan:
    """The plan with its duration at a measured training speed.

    A forward pass costs a third of a training pass with gradients for all weights, and half with frozen ones (2N of 4N FLOPs
    a token). DPO's reference costs a forward pass over each row that is drawn; KTO's is part of its steps and evaluations.

    Args:
        plan: A plan.
        tokens_per_second: Real tokens of forward and backward a second, over all processes.
        num_eval_tokens: Tokens of one pass over the validation rows.
        startup_seconds: The time before the first step.
    """
    trained = plan.num_tokens * plan.num_epochs
    num_evaluations = 1 + math.ceil(plan.num_steps / plan.eval_steps)
    reference = 0.0
    if plan.method == "dpo":
        # A sharded model computes it in each step, instead of once for all epochs.
        reference = trained if plan.sharding != "none" else min(trained, plan.num_tokens)
    evaluated = _EVALUATION_SHARE.get(plan.method, 0.5) * num_eval_tokens * num_evaluations
    seconds = (trained + 0.5 * reference + evaluated) / tokens_per_second
    return plan.model_copy(update={"estimated_seconds": round(startup_seconds + seconds, 1)})


def next_oom_fallback(plan: TrainingPlan, *, allow_shorter_length: bool) -> tuple[TrainingPlan, str] | None:
    """The next plan to try after running out of memory, and what it changes; None when none is left.

    The first fallbacks halve the micro-batch (or take the next smaller divisor of the batch) and accumulate more. Batches
    and gradients stay the same (KTO's nearly: it estimates its KL term within a micro-batch). The next one is gradient
    checkpointing, which costs time. The last ones halve the length, which changes what is learned and has to be allowed.
    """
    batch_size, smallest = plan.micro_batch_size * plan.accumulation_steps, _SMALLEST_MICRO_BATCH.get(plan.method, 1)
    sizes = range(plan.micro_batch_size // 2, smallest - 1, -1)
    if micro_batch := next((size for size in sizes if batch_size % size == 0), 0):
        accumulation = batch_size // micro_batch
        change = {"micro_batch_size": micro_batch, "accumulation_steps": accumulation}
        return plan.model_copy(update=change), f"micro-batch {micro_batch}, accumulation {accumulation}"
    if not plan.gradient_checkpointing:
        return plan.model_copy(update={"gradient_checkpointing": True}), "gradient checkpointing"
    if allow_shorter_length and plan.max_length_tokens >= 64:
        length = plan.max_length_tokens // 2
        return plan.model_copy(update={"max_length_tokens": length}), f"max_length {length}"
    return None


def effective_lora(config: TrainerConfig, trained: LoraSettings | None = None) -> LoraSettings | None:
    """The adapter's settings: SFT's own, or those of the adapter that a later method continues."""
    return config.lora if isinstance(config, SftConfig) else trained


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0
