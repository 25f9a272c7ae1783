"""What forbids a training before it spends anything: tokens, lengths, rewards, the device, room on the disk. Pure checks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import ConfigError, InputError, ModelNotFoundError, OutOfMemoryError, QualityLimitError, StoreError
from tasks.core.tool_calls import tools_in
from tasks.measures.tool_calls import calls_in, schemas_of
from tasks.modeling.shape import ModelShape
from tasks.training.config import GrpoConfig
from tasks.training.examples import Prompt, Rendered
from tasks.training.plan.hardware import Hardware
from tasks.training.plan.memory import checkpoint_bytes


def check_rewards(config: GrpoConfig, prompts: Sequence[Prompt]) -> None:
    """Refuses prompts whose replies could not differ in reward.

    Raises:
        InputError: Labels or calls are rewarded and no row has any, no call can be read, or there are too few prompts for
            one step.
    """
    if config.label and not any(prompt.label for prompt in prompts):
        raise InputError(
            "training.grpo.label",
            "rows without a label",
            "labels to reward",
            "Set `examples.label_column`, or leave the reward out.",
        )
    if config.calls and not any(tools_in(prompt.messages) for prompt in prompts):
        raise InputError(
            "training.grpo.calls", "rows without tools", "tools whose calls are rewarded", "Leave the reward out."
        )
    calling = [prompt for prompt in prompts if prompt.num_calls] if config.calls else []
    if calling and not any(calls_in(prompt.reference, schemas_of(tools_in(prompt.messages))) for prompt in calling):
        raise InputError(
            "training.grpo.calls",
            f"{len(calling)} rows whose calls the chat template writes in a form that is not known here",
            "calls that can be read in a reply",
            "Set `training.base_model.chat_template` (for instance to `hermes`), or leave the reward out.",
        )
    per_step = config.effective_batch_size // config.num_generations
    if len(prompts) < per_step:
        raise InputError(
            "training.grpo.effective_batch_size",
            f"{len(prompts)} prompts",
            f"at least {per_step}, the prompts of one step",
            "Lower `effective_batch_size`, or bring more rows.",
        )


def check_fits_model(shape: ModelShape, rows: Sequence[Rendered | Prompt]) -> None:
    """Refuses tokens that the base model does not know and rows beyond its context: training would fail, or learn nonsense.

    Raises:
        ModelNotFoundError: The tokenizer makes tokens that the model does not have.
        ConfigError: A row is longer than the model's context.
    """
    largest = max(max(row.input_ids, default=0) for row in rows)
    if largest >= shape.vocab_size:
        raise ModelNotFoundError(
            "training.base_model",
            f"a tokenizer that makes token {largest} for a model of {shape.vocab_size} tokens",
            "a tokenizer and a model that belong together",
            "Use the tokenizer files that came with the model.",
        )
    longest = max(row.longest_sequence for row in rows)
    if shape.max_positions is not None and longest > shape.max_positions:
        raise ConfigError(
            "training.max_length",
            f"rows of up to {longest} tokens",
            f"at most {shape.max_positions}, the base model's context",
            f"Set `max_length` to {shape.max_positions} or less, or choose a model with a longer context.",
        )


def check_device(plan: TrainingPlan, hardware: Hardware) -> None:
    """Refuses a device whose free memory is too small for the weights, the adapter and its optimizer.

    Raises:
        OutOfMemoryError: Another program uses the device, or the model is too large for it.
    """
    needed = sum(plan.memory_bytes[part] for part in ("weights", "gathered", "adapter", "gradients", "optimizer"))
    if needed > hardware.room_bytes:
        raise OutOfMemoryError(
            f"training.{plan.method}.device",
            f"{hardware.room_bytes / 1e9:.2f} GB free on {hardware.name}",
            f"{needed / 1e9:.2f} GB for weights, adapter and optimizer alone",
            "Stop other programs on the device, use quantization: nf4, sharding: fsdp2 on several devices, a smaller base "
            "model or a larger device.",
        )


def check_truncation(plan: TrainingPlan, limit: float, num_rows: int) -> None:
    """Refuses a training in which too many rows would lose their end.

    Args:
        plan: Counts the rows that are cut, or dropped because nothing of their reply is left.
        limit: The largest share of rows.
        num_rows: All rows, including dropped ones.

    Raises:
        QualityLimitError: More than ``limit`` of the rows are too long.
    """
    share = plan.num_truncated_rows / (num_rows or 1)
    if share > limit:
        raise QualityLimitError(
            "training.max_length",
            f"{plan.num_truncated_rows} of {num_rows} rows ({share:.1%}) longer than {plan.max_length_tokens} tokens",
            f"at most {limit:.1%}",
            "Raise `max_length`, shorten the rows, or raise `max_truncated_share`.",
        )


def check_disk(plan: TrainingPlan, work: Path) -> None:
    """Refuses a disk that is too full for the checkpoints.

    Raises:
        StoreError: There is too little room.
    """
    needed = checkpoint_bytes(plan)
    free = shutil.disk_usage(work).free
    if free < needed:
        raise StoreError(
            str(work),
            f"{free / 1e9:.2f} GB free",
            f"{needed / 1e9:.2f} GB for checkpoints",
            "Free disk space, or set `scratch_dir` to a larger disk.",
        )
