"""What is checked before a trainer spends anything: rows as tokens, lengths, the plan, room on the disk and the device."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import ConfigError, InputError, ModelNotFoundError, OutOfMemoryError, QualityLimitError, StoreError
from tasks.core.rows import Row
from tasks.core.storage import run_store
from tasks.training import planning
from tasks.training.config import GrpoConfig, LoraSettings
from tasks.training.hardware import find_hardware
from tasks.training.rendering import Pair, Prompt, Rendered, stop_token_ids
from tasks.training.rendering import render_rows as render
from tasks.training.specification import SftMethod, TrainerSpec


@dataclass(frozen=True)
class Rows:
    """Training rows, and the validation rows that are used during training, as tokens.

    Attributes:
        train: Rows to train on.
        validation: Held-out rows for the loss.
        pairs: The held-out rows as pairs, for preference rates; none for SFT.
        num_dropped: Training rows that have no room for a reply.
    """

    train: list[Any]
    validation: list[Any]
    pairs: list[Any] = field(default_factory=list)
    num_dropped: int = 0

    @property
    def num_read(self) -> int:
        """Training rows before any was dropped."""
        return len(self.train) + self.num_dropped

    @property
    def num_eval_tokens(self) -> int:
        """Tokens of one pass over the validation rows."""
        return sum(len(row) for row in self.validation)

    def reached_by(self, plan: TrainingPlan, seed: int) -> Rows:
        """These rows, or a random part of them where the planned steps end before every row was seen.

        What is never drawn needs no reference log-probabilities either, which cost half a training pass a row.
        """
        reached = plan.num_steps * plan.micro_batch_size * plan.accumulation_steps * plan.num_processes
        if plan.packing:  # a sequence holds several rows
            reached = math.ceil(plan.num_epochs * len(self.train))
        if reached >= len(self.train):
            return self
        drawn = sorted(random.Random(seed).sample(range(len(self.train)), reached))
        return replace(self, train=[self.train[index] for index in drawn])


def render_rows(spec: TrainerSpec, base: Path, tokenizer: Any, max_length: int) -> Rows:
    """The rows that have room for a reply within ``max_length``; a prompt that fills it alone teaches nothing."""
    config = spec.method.config
    path = base / "generation_config.json"
    stops = stop_token_ids(tokenizer, GenerationConfig.from_pretrained(base) if path.is_file() else None)
    kind = spec.method.kind
    num_new_tokens = config.max_completion_length if isinstance(config, GrpoConfig) else 0
    train = run_store().read_rows(spec.train)
    held_out = [] if spec.validation is None else run_store().read_rows(spec.validation)
    if len(held_out) > config.max_eval_rows:
        held_out = random.Random(config.seed).sample(held_out, config.max_eval_rows)

    def tokens_of(rows: Iterable[Row], kind: str) -> tuple[list[Rendered | Prompt], int]:
        rendered = render(kind, tokenizer, rows, stops=stops, max_length=max_length, max_new_tokens=num_new_tokens)
        kept = [row for row in rendered if count_learned(row)]
        return kept, len(rendered) - len(kept)

    examples, num_dropped = tokens_of(train, kind)
    if not examples:
        raise InputError(
            f"data set {spec.train.sha256[:12]}",
            f"no row with room for a reply within {max_length} tokens",
            "training rows",
            "Raise `max_length`, or look at what the earlier stages removed.",
        )
    pairs = [] if kind in ("sft", "grpo") else tokens_of(held_out, "dpo")[0]
    return Rows(examples, tokens_of(held_out, kind)[0], pairs, num_dropped)


def count_learned(row: Rendered | Prompt) -> int:
    """How many tokens of a row are learned."""
    if isinstance(row, Pair):
        return len(row.chosen_ids) + len(row.rejected_ids) if row.chosen_ids and row.rejected_ids else 0
    return row.num_new_tokens if isinstance(row, Prompt) else len(row.reply_ids)


def plan_training(spec: TrainerSpec, base: Path, rows: Rows) -> TrainingPlan:
    """The plan for these rows on this machine, still without its time."""
    config = spec.method.config
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    # Every prompt is answered several times.
    times = config.num_generations if isinstance(config, GrpoConfig) else 1
    workload = planning.Workload(
        lengths=[len(row) for row in rows.train for _ in range(times)],
        num_trained_tokens=times * sum(count_learned(row) for row in rows.train),
        num_truncated_rows=sum(row.truncated for row in rows.train) + rows.num_dropped,
    )
    return planning.make_plan(
        planning.ModelShape.from_config(settings, spec.base.num_parameters),
        workload,
        find_hardware(config.device),
        config,
        method=spec.method.kind,
        lora=_lora_of(spec),
    )


def check_rewards(config: GrpoConfig, rows: Rows) -> None:
    """Refuses rows that could earn no difference in reward.

    Raises:
        InputError: The label is rewarded and no row has one, or there are too few prompts for one step.
    """
    if config.label and not any(row.label for row in rows.train):
        raise InputError(
            "training.grpo.label",
            "rows of which none has a label",
            "labels to reward",
            "Set `examples.label_column`, or leave the reward out.",
        )
    wanted = config.effective_batch_size // config.num_generations
    if len(rows.train) < wanted:
        raise InputError(
            "training.grpo.effective_batch_size",
            f"{len(rows.train)} prompts",
            f"at least {wanted}, the prompts of one step",
            "Lower `effective_batch_size`, or bring more rows.",
        )


def check_fits_model(base: Path, rows: Rows) -> None:
    """Refuses tokens and lengths that the base model has no place for; it would fail later, or learn nonsense.

    Raises:
        ModelNotFoundError: The tokenizer makes tokens that the model does not have.
        ConfigError: A row is longer than the model's positions.
    """
    settings = json.loads((base / "config.json").read_text(encoding="utf-8"))
    largest = max(max(_token_ids(row), default=0) for row in (*rows.train, *rows.validation))
    if largest >= settings["vocab_size"]:
        raise ModelNotFoundError(
            "training.base_model",
            f"a tokenizer that makes token {largest} for a model of {settings['vocab_size']} tokens",
            "a tokenizer and a model that belong together",
            "Use the tokenizer files that came with the model.",
        )
    positions = settings.get("max_position_embeddings")
    longest = max(_sequence_length(row) for row in (*rows.train, *rows.validation))
    if positions is not None and longest > positions:
        raise ConfigError(
            "training.max_length",
            f"rows of up to {longest} tokens",
            f"at most {positions}, the base model's positions",
            f"Set `max_length` to {positions} or less, or choose a model with a longer context.",
        )


def check_device(plan: TrainingPlan, hardware: planning.Hardware) -> None:
    """Refuses a device whose free memory does not even hold the weights and what training keeps of them.

    Raises:
        OutOfMemoryError: Something else uses the device, or the model is too large for it.
    """
    needed = sum(plan.memory_bytes[part] for part in ("weights", "gathered", "adapter", "gradients", "optimizer"))
    if needed > hardware.room_bytes:
        raise OutOfMemoryError(
            f"training.{plan.method}.device",
            f"{hardware.room_bytes / 1e9:.2f} GB free on {hardware.name}",
            f"{needed / 1e9:.2f} GB for weights, adapter and optimizer alone",
            "End what else uses the device, use quantization: nf4, sharding: fsdp2 on several devices, a smaller base model "
            "or a larger device.",
        )


def check_truncation(plan: TrainingPlan, limit: float, num_rows: int) -> None:
    """Refuses to train when too many rows would lose their end.

    Args:
        plan: Counts the rows that are cut or, where nothing of the reply is left, dropped.
        limit: The largest share of rows.
        num_rows: All rows, the dropped ones too.

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
    """Refuses to train where the checkpoints would not fit.

    Raises:
        StoreError: There is too little room.
    """
    needed = planning.checkpoint_bytes(plan)
    free = shutil.disk_usage(work).free
    if free < needed:
        raise StoreError(
            str(work),
            f"{free / 1e9:.2f} GB free",
            f"{needed / 1e9:.2f} GB for checkpoints",
            "Free disk space, or set `scratch_dir` to a larger disk.",
        )


def _token_ids(row: Rendered | Prompt) -> list[int]:
    return row.prompt_ids + row.chosen_ids + row.rejected_ids if isinstance(row, Pair) else row.input_ids


def _sequence_length(row: Rendered | Prompt) -> int:
    if isinstance(row, Pair):
        return len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids))
    return len(row)


def _lora_of(spec: TrainerSpec) -> LoraSettings | None:
    if isinstance(spec.method, SftMethod):
        return spec.method.config.lora
    folder = run_store().fetch_folder(spec.method.adapter)
    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    modules = settings["target_modules"]
    if not isinstance(modules, str):
        modules = tuple(sorted({name.rsplit(".", 1)[-1] for name in modules}))
    return LoraSettings(r=settings["r"], target_modules=modules, layers_to_transform=settings["layers_to_transform"])
