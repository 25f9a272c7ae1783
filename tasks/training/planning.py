"""What training will take, computed before it spends anything: steps, micro-batches, memory, time. Pure; no torch.

Memory of one device, by part::

    weights        base parameters in the compute precision (or 4-bit); this device's part of them where they are sharded
    gathered       what is put together of a sharded model at one time
    adapter        trainable parameters, float32
    gradients      one float32 each
    optimizer      AdamW: two float32 each
    activations    what the backward pass needs, for one micro-batch
    head           logits of one tile of the vocabulary projection
    runtime        Python, libraries, allocator, CUDA context
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import BudgetError, ConfigError
from tasks.training.config import BudgetConfig, HardwareConfig, LoraSettings, SftConfig, TrainerConfig

NO_PRICE = "training.budget.price_per_device_hour"
"""Where a cost that cannot be told is refused; there is nothing in it that a person could allow."""
PACKED_ATTENTION = "varlen"
"""The attention implementation for packed sequences; see :mod:`tasks.training.kernels`."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# NF4 with double quantisation: 4 bits and 0.127 bits of constants a weight (QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = 0.516
# Largest micro-batch on a CPU, in padded tokens: beyond it, intermediate results leave the caches and nothing is gained.
CPU_MICRO_BATCH_TOKENS = 1024
# The same on a GPU: 15.1, 15.8 and 15.9 thousand tokens/s were measured at 4, 6 and 8 thousand tokens of an 8B model on an
# H100 (4-bit weights, which have to be unpacked for each micro-batch: 11.9, and 15.6 at 12 thousand).
GPU_MICRO_BATCH_TOKENS = 12_288
# Packed sequences are not cut to meet the effective batch: how far, as a share, a step may be from it.
_PACKED_BATCH_TOLERANCE = 0.15
# Architectures whose layers Liger's kernels replace one for one, as the memory estimate counts them.
_LIGER_MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# TRL's KTO takes no single reply: its KL term needs another one.
_SMALLEST_MICRO_BATCH = {"kto": 2}
# What an evaluation costs of a training pass over the same tokens, with frozen weights: a forward pass (2N FLOPs a token) of
# forward and backward (4N); KTO runs all but the backward pass (2N of 10N) in an evaluation too.
_EVALUATION_SHARE = {"kto": 0.8}
_GPU_MEMORY_SHARE = 0.9
_CPU_MEMORY_SHARE = 0.7
# Measured: this process with torch, transformers, peft and trl imported.
_CPU_RUNTIME_BYTES = 950_000_000
# The trainer's heap is never trimmed (supervisor.ENVIRONMENT), and batches differ in shape, so that what one leaves free
# does not fit the next: measured 1.1 times the activations after one step, 1.4 to 1.8 times after some.
_CPU_HEAP_FACTOR = 1.5
# Measured on an H100: workspaces of cuBLAS and gaps between tensors. The CUDA context is outside what PyTorch counts, and
# within the share of memory that no plan uses.
_GPU_RUNTIME_BYTES = 400_000_000
# TRL's loss head scores the learned positions against this much of the vocabulary at a time.
_GPU_HEAD_TILE = 32_768


@dataclass(frozen=True)
class ModelShape:
    """The numbers of a decoder's configuration that decide memory and time."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    model_type: str = "llama"
    tied_embeddings: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any], num_parameters: int) -> ModelShape:
        """The shape told by a model's ``config.json``."""
        hidden = int(config["hidden_size"])
        heads = int(config["num_attention_heads"])
        return cls(
            num_parameters=num_parameters,
            num_layers=int(config["num_hidden_layers"]),
            hidden_size=hidden,
            intermediate_size=int(config.get("intermediate_size") or 4 * hidden),
            vocab_size=int(config["vocab_size"]),
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            model_type=str(config.get("model_type", "")),
            tied_embeddings=bool(config.get("tie_word_embeddings", True)),
        )

    @property
    def num_embeddings(self) -> int:
        """Parameters of the embeddings, those of the output too where it has its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's projections, by module name."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (self.hidden_size, queries),
            "k_proj": (self.hidden_size, keys),
            "v_proj": (self.hidden_size, keys),
            "o_proj": (queries, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
        }

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one layer: its projections and two norms."""
        return sum(inputs * outputs for inputs, outputs in self.linear_shapes.values()) + 2 * self.hidden_size


@dataclass(frozen=True)
class Hardware:
    """What there is to train on.

    ``memory_bytes`` is all the memory of one device: it decides micro-batch, checkpointing and quantisation, of which a
    model may depend, so what else runs just now has no part in it. ``free_memory_bytes`` is what is left of it now, and
    decides only whether training can begin; None where nothing else runs.
    """

    device: str
    name: str
    num_devices: int
    memory_bytes: int
    supports_bfloat16: bool
    supports_packed_attention: bool = False
    supports_liger_kernel: bool = False
    free_memory_bytes: int | None = None

    @property
    def room_bytes(self) -> int:
        """The memory that is free now."""
        return self.memory_bytes if self.free_memory_bytes is None else self.free_memory_bytes


def declared_hardware(declared: HardwareConfig) -> Hardware:
    """The devices that a configuration declares, nothing else running on them."""
    on_gpu = declared.device == "cuda"
    return Hardware(
        device=declared.device,
        name=declared.name,
        num_devices=declared.count,
        memory_bytes=int(declared.memory_gb * 1e9),
        supports_bfloat16=on_gpu,
        supports_packed_attention=on_gpu and declared.packed_attention,
        supports_liger_kernel=on_gpu and declared.liger_kernel,
    )


@dataclass(frozen=True)
class Spent:
    """What earlier steps took of one budget."""

    device_hours: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True)
class Workload:
    """The rendered rows: tokens of each training row, how many of them are learned, how many rows were cut."""

    lengths: Sequence[int]
    num_trained_tokens: int
    num_truncated_rows: int
    num_eval_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        """Tokens of one epoch."""
        return sum(self.lengths)


def count_trainable(shape: ModelShape, lora: LoraSettings | None) -> int:
    """Trainable parameters: r x (inputs + outputs) for every adapted projection, or all of them without an adapter."""
    if lora is None:
        return shape.num_parameters
    chosen = [
        size
        for name, size in shape.linear_shapes.items()
        if lora.target_modules == "all-linear" or name in _as_names(lora.target_modules)
    ]
    layers = len(lora.layers_to_transform) if lora.layers_to_transform is not None else shape.num_layers
    return layers * sum(lora.r * (inputs + outputs) for inputs, outputs in chosen)


def estimate_memory(
    shape: ModelShape,
    *,
    num_trainable: int,
    tokens: int,
    precision: str,
    quantization: str,
    gradient_checkpointing: bool,
    device: str,
    liger_kernel: bool = False,
    num_shards: int = 1,
) -> dict[str, int]:
    """Bytes by part for a micro-batch of ``tokens`` padded tokens, of base weights in ``num_shards`` parts."""
    size = BYTES[precision]
    quantized = shape.num_parameters - shape.num_embeddings if quantization == "nf4" else 0
    # Kept for the backward pass in each layer (Llama-like, fused attention): inputs of the two norms and of the four
    # groups of projections, queries, keys and values before and after rotation, attention output, gate, activation, up and
    # their product.
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    if liger_kernel:  # rotates in place, and computes norms and activations anew
        per_layer = (3 * shape.hidden_size + 2 * queries + 2 * keys + 3 * shape.intermediate_size) * size
    else:
        per_layer = (6 * shape.hidden_size + 3 * queries + 4 * keys + 5 * shape.intermediate_size) * size
    boundary = shape.hidden_size * size
    if gradient_checkpointing:
        activations = tokens * (shape.num_layers * boundary + per_layer)
    else:
        activations = tokens * shape.num_layers * (per_layer + boundary)
    if device == "cpu":
        activations = int(activations * _CPU_HEAP_FACTOR)
    if device == "cuda":
        head = tokens * min(shape.vocab_size, _GPU_HEAD_TILE) * 4
    else:
        head = min(tokens, 256) * shape.vocab_size * 4 * 2
    return {
        "weights": int(((shape.num_parameters - quantized) * size + quantized * NF4_BYTES) / num_shards),
        # The layer that is computed, the next one that is fetched meanwhile, and the embeddings of input and output: tied
        # ones are gathered twice, by transformers 5.23 under either name.
        "gathered": (
            2 * (shape.num_layer_parameters + shape.vocab_size * shape.hidden_size) * size if num_shards > 1 else 0
        ),
        "adapter": num_trainable * 4 if num_trainable != shape.num_parameters else 0,
        "gradients": num_trainable * 4,
        "optimizer": num_trainable * 8,
        "activations": activations,
        "head": head,
        "runtime": _GPU_RUNTIME_BYTES if device == "cuda" else _CPU_RUNTIME_BYTES,
    }


def make_plan(
    shape: ModelShape,
    workload: Workload,
    hardware: Hardware,
    config: TrainerConfig,
    *,
    method: str,
    lora: LoraSettings | None,
) -> TrainingPlan:
    """The plan, without its time (see :func:`with_time`).

    The micro-batch is the largest that fits and divides the effective batch; what does not fit is helped first by
    gradient checkpointing, then by 4-bit weights.
    """
    notes: list[str] = []
    device = hardware.device
    precision = config.precision
    if precision == "auto":
        precision = "bfloat16" if hardware.supports_bfloat16 else "float32"
    num_processes = config.num_processes or max(1, hardware.num_devices)
    per_process = math.ceil(config.effective_batch_size / num_processes)
    packing = hardware.supports_packed_attention if config.packing == "auto" else config.packing
    packing = packing and method == "sft"
    attention = config.attn_implementation
    if attention is None:
        attention = PACKED_ATTENTION if packing and hardware.supports_packed_attention else "sdpa"
    liger_kernel = _wants_liger_kernel(shape, hardware, config, method)
    longest = config.max_length if packing else max(workload.lengths, default=0)
    budget = config.memory_limit_bytes or int(
        hardware.memory_bytes * (_GPU_MEMORY_SHARE if device == "cuda" else _CPU_MEMORY_SHARE)
    )
    num_trainable = count_trainable(shape, lora)

    def memory_of(rows: int, checkpointing: bool, quantization: str) -> dict[str, int]:
        return estimate_memory(
            shape,
            num_trainable=num_trainable,
            tokens=rows * longest,
            precision=precision,
            quantization=quantization,
            gradient_checkpointing=checkpointing,
            device=device,
            liger_kernel=liger_kernel,
            num_shards=1 if config.sharding == "none" else num_processes,
        )

    def fits(rows: int, checkpointing: bool, quantization: str) -> bool:
        return sum(memory_of(rows, checkpointing, quantization).values()) <= budget

    may_quantize = config.quantization == "auto" and lora is not None and config.sharding == "none"
    quantizations = ["none", "nf4"] if may_quantize else [config.quantization]
    quantizations = ["none" if choice == "auto" else choice for choice in quantizations]
    checkpointings = [False, True] if config.gradient_checkpointing == "auto" else [config.gradient_checkpointing]
    choices = [(quantization, checkpointing) for quantization in quantizations for checkpointing in checkpointings]
    quantization, checkpointing = next((c for c in choices if fits(1, c[1], c[0])), choices[-1])
    if not fits(1, checkpointing, quantization):
        notes.append("by this estimate not even one row fits; trying all the same")
    sequences = count_sequences(workload.lengths, config.max_length) if packing else len(workload.lengths)
    wanted = per_process * sequences / len(workload.lengths) if packing else per_process
    if config.per_device_train_batch_size is not None:
        rows = max(1, min(config.per_device_train_batch_size, round(wanted)))
    elif packing and attention == "sdpa":
        rows = 1  # this attention grows with the square of a flattened micro-batch
    else:
        typical = config.max_length if packing else max(1, _median(workload.lengths))
        cap = max(1, (CPU_MICRO_BATCH_TOKENS if device == "cpu" else GPU_MICRO_BATCH_TOKENS) // typical)
        sizes = [n for n in range(1, min(cap, max(1, round(wanted))) + 1) if _keeps_batch(n, wanted, exact=not packing)]
        rows = max((n for n in sizes if fits(n, checkpointing, quantization)), default=1)
    rows = max(rows, _SMALLEST_MICRO_BATCH.get(method, 1))
    accumulation = max(1, round(wanted / rows))
    steps_per_epoch = max(1, math.ceil(sequences / (rows * accumulation * num_processes)))
    num_steps = config.max_steps or math.ceil(steps_per_epoch * config.num_train_epochs)
    if packing:
        notes.append("rows are packed into sequences of max_length")
    if method == "kto":
        notes.append("each pair counts as two rows, the wanted reply and the unwanted one")
    if method == "grpo":
        notes.append("each prompt counts once for every reply drawn to it, at the longest that it may be")
    if config.sharding != "none":
        notes.append(f"the base model lies in {num_processes} parts, one on each device")
    if quantization == "nf4" and config.quantization == "auto":
        notes.append("4-bit weights, because 16-bit ones would not fit")
    return TrainingPlan(
        method=method,
        num_rows=len(workload.lengths),
        num_tokens=workload.num_tokens,
        num_trained_tokens=workload.num_trained_tokens,
        num_steps=num_steps,
        micro_batch_size=rows,
        accumulation_steps=accumulation,
        num_processes=num_processes,
        eval_steps=max(1, math.ceil(steps_per_epoch / config.evals_per_epoch)),
        max_length_tokens=config.max_length,
        num_truncated_rows=workload.num_truncated_rows,
        precision=precision,
        device=device,
        device_name=hardware.name,
        num_parameters=shape.num_parameters,
        num_trainable_parameters=num_trainable,
        memory_bytes=memory_of(rows, checkpointing, quantization),
        estimated_seconds=0.0,
        gradient_checkpointing=checkpointing,
        packing=packing,
        num_sequences=sequences,
        quantization=quantization,
        sharding=config.sharding,
        attn_implementation=attention,
        liger_kernel=liger_kernel,
        notes=tuple(notes),
    )


def count_sequences(lengths: Sequence[int], max_length: int) -> int:
    """How many sequences rows make when each goes into the fullest one that has room, the longest rows first.

    This is TRL's `bfd` packing: best fit, decreasing.
    """
    room: list[int] = []  # left in every sequence that is not full, ascending
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


def _keeps_batch(rows: int, wanted: float, *, exact: bool) -> bool:
    """Whether whole micro-batches of ``rows`` make up the wanted batch; nearly, where it is counted in packed sequences."""
    made = rows * max(1, round(wanted / rows))
    return made == wanted if exact else abs(made - wanted) <= _PACKED_BATCH_TOLERANCE * wanted


def _wants_liger_kernel(shape: ModelShape, hardware: Hardware, config: TrainerConfig, method: str) -> bool:
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

    Args:
        plan: A plan.
        tokens_per_second: Real tokens of forward and backward a second, over all processes.
        num_eval_tokens: Tokens of one pass over the validation rows; a forward pass costs a third of a training pass
            with gradients for all weights, half with frozen ones (2N of 4N FLOPs a token). The reference of DPO costs as
            much, once for each row that is reached; KTO's is part of each of its steps and evaluations.
        startup_seconds: What passes before the first step.
    """
    trained = plan.num_tokens * plan.num_epochs
    evaluations = 1 + math.ceil(plan.num_steps / plan.eval_steps)
    reference = 0.0
    if plan.method == "dpo":
        # Of a sharded model it is computed in each step, instead of once for all epochs.
        reference = trained if plan.sharding != "none" else min(trained, plan.num_tokens)
    evaluated = _EVALUATION_SHARE.get(plan.method, 0.5) * num_eval_tokens * evaluations
    seconds = (trained + 0.5 * reference + evaluated) / tokens_per_second
    return plan.model_copy(update={"estimated_seconds": round(startup_seconds + seconds, 1)})


def with_price(plan: TrainingPlan, budget: BudgetConfig) -> TrainingPlan:
    """The plan with the price of its device, where the table has one."""
    price = budget.price_of(plan.device, plan.device_name)
    return plan.model_copy(update={"price_per_device_hour": price, "currency": budget.currency})


def check_budget(plan: TrainingPlan, budget: BudgetConfig, spent: Spent) -> None:
    """Refuses a timed and priced plan that would go over a ceiling.

    Args:
        plan: What would be done.
        budget: Its ceilings.
        spent: What earlier steps of the same training took.

    Raises:
        BudgetError: A ceiling would be passed, or the cost cannot be told for want of a price.
    """
    todo = (
        "Raise the ceiling, or plan less: fewer rows, `num_train_epochs` or `max_steps`, a smaller model, a faster device."
    )
    before = f", after {amount(spent.device_hours)} device-hours before it" if spent.device_hours else ""
    hours = spent.device_hours + plan.device_hours
    if budget.max_device_hours is not None and hours > budget.max_device_hours:
        raise BudgetError(
            "training.budget.max_device_hours",
            f"{amount(plan.device_hours)} device-hours planned for {plan.method} ({plan.num_steps} steps on "
            f"{plan.num_devices} x {plan.device_name or plan.device}){before}",
            f"at most {budget.max_device_hours:g} in all",
            todo,
        )
    if budget.max_cost is None:
        return
    if plan.cost is None:
        raise BudgetError(
            NO_PRICE,
            f"no price for `{plan.device_name or plan.device}`",
            "one, because max_cost is set",
            f"Add `{plan.device}` to the table.",
        )
    if spent.cost + plan.cost > budget.max_cost:
        raise BudgetError(
            "training.budget.max_cost",
            f"{amount(plan.cost)} {plan.currency} planned for {plan.method} ({amount(plan.device_hours)} device-hours at "
            f"{plan.price_per_device_hour:g}){f', after {amount(spent.cost)} before it' if spent.cost else ''}",
            f"at most {budget.max_cost:g} {budget.currency} in all",
            todo,
        )


def amount(number: float) -> str:
    """Device-hours or money in words: two places, and two digits of what is less than a hundredth."""
    return f"{number:.2f}" if number >= 0.01 else f"{number:.2g}"


def next_rung(plan: TrainingPlan, *, allow_shorter_length: bool) -> tuple[TrainingPlan, str] | None:
    """The plan with less memory to try after running out of it, and what changed; None when there is none left.

    Half the micro-batch (or the next smaller divisor of the batch) with more accumulation leaves the batches, and so the
    gradients, the same (KTO's nearly: it estimates its KL term within a micro-batch); checkpointing trades time; a shorter
    length changes what is learned and has to be allowed.
    """
    batch_size, smallest = plan.micro_batch_size * plan.accumulation_steps, _SMALLEST_MICRO_BATCH.get(plan.method, 1)
    sizes = range(plan.micro_batch_size // 2, smallest - 1, -1)
    if rows := next((size for size in sizes if batch_size % size == 0), 0):
        accumulation = batch_size // rows
        change = {"micro_batch_size": rows, "accumulation_steps": accumulation}
        return plan.model_copy(update=change), f"micro-batch {rows}, accumulation {accumulation}"
    if not plan.gradient_checkpointing:
        return plan.model_copy(update={"gradient_checkpointing": True}), "gradient checkpointing"
    if allow_shorter_length and plan.max_length_tokens >= 64:
        length = plan.max_length_tokens // 2
        return plan.model_copy(update={"max_length_tokens": length}), f"max_length {length}"
    return None


def effective_lora(config: TrainerConfig, trained: LoraSettings | None = None) -> LoraSettings | None:
    """The adapter's settings: SFT's own, or those of the adapter that preference training continues."""
    return config.lora if isinstance(config, SftConfig) else trained


def checkpoint_bytes(plan: TrainingPlan) -> int:
    """Disk room that training needs at its fullest: three checkpoints (one being written) and two sets of weights."""
    weights = plan.num_trainable_parameters * 4
    return 3 * 3 * weights + 2 * weights + 100_000_000


def _as_names(modules: str | Sequence[str]) -> tuple[str, ...]:
    return (modules,) if isinstance(modules, str) else tuple(modules)


def _median(values: Sequence[int]) -> int:
    return sorted(values)[len(values) // 2] if values else 0
