"""The rows of a training as tokens, read from the store in the trainer process."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import InputError
from tasks.core.rows import Row
from tasks.core.storage import run_store
from tasks.modeling.conversations import stop_token_ids
from tasks.training.config import GrpoConfig, SftConfig
from tasks.training.examples import Prompt, Rendered, render_rows, unlearned_notes, usable_rows
from tasks.training.launch.protocol import TrainerSpec


@dataclass(frozen=True)
class Rows:
    """Training rows, and the validation rows that are used during training, as tokens.

    Attributes:
        train: Rows to train on.
        validation: Held-out rows for the loss.
        pairs: The held-out rows as pairs, for preference rates; empty for SFT and GRPO.
        num_dropped: Training rows that leave no room for a reply.
        notes: What was left out or cannot be learned, for the report.
    """

    train: list[Any]
    validation: list[Any]
    pairs: list[Any] = field(default_factory=list)
    num_dropped: int = 0
    notes: tuple[str, ...] = ()

    @property
    def num_read(self) -> int:
        """Training rows before any was dropped."""
        return len(self.train) + self.num_dropped

    @property
    def num_eval_tokens(self) -> int:
        """Tokens of one pass over the validation rows."""
        return sum(len(row) for row in self.validation)


def rows_seen_by(plan: TrainingPlan, rows: Rows, seed: int) -> Rows:
    """The rows, or a random part of them where the planned steps end before every row is drawn.

    A row that is never drawn needs no reference log-probabilities either, which cost half a training pass each.
    """
    num_drawn = plan.num_steps * plan.micro_batch_size * plan.accumulation_steps * plan.num_processes
    if plan.packing:  # a sequence holds several rows
        num_drawn = math.ceil(plan.num_epochs * len(rows.train))
    if num_drawn >= len(rows.train):
        return rows
    drawn = sorted(random.Random(seed).sample(range(len(rows.train)), num_drawn))
    return replace(rows, train=[rows.train[index] for index in drawn])


def read_rows(spec: TrainerSpec, base: Path, tokenizer: Any, max_length: int) -> Rows:
    """The rows that leave room for a reply within ``max_length``; a prompt that fills it teaches nothing.

    Raises:
        InputError: No training row leaves room for a reply.
    """
    config, kind = spec.method.config, spec.method.kind
    path = base / "generation_config.json"
    stops = stop_token_ids(tokenizer, GenerationConfig.from_pretrained(base) if path.is_file() else None)
    read = run_store().read_rows
    usable, notes = usable_rows(tokenizer, read(spec.train), config.max_refused_share, stops)
    held_out, more_notes = usable_rows(tokenizer, read(spec.validation) if spec.validation else [], 1.0, stops)
    if len(held_out) > config.max_eval_rows:
        held_out = random.Random(config.seed).sample(held_out, config.max_eval_rows)

    def tokens_of(rows: Iterable[Row], kind: str) -> tuple[list[Rendered | Prompt], int]:
        rendered = render_rows(
            kind,
            tokenizer,
            rows,
            stops=stops,
            max_length=max_length,
            max_new_tokens=config.max_completion_length if isinstance(config, GrpoConfig) else 0,
            learn=config.learn if isinstance(config, SftConfig) else "last",
        )
        kept = [row for row in rendered if row.num_learned_tokens]
        return kept, len(rendered) - len(kept)

    train, num_dropped = tokens_of(usable, kind)
    if not train:
        raise InputError(
            f"data set {spec.train.sha256[:12]}",
            f"no row with room for a reply within {max_length} tokens",
            "training rows",
            "Raise `max_length`, or look at what the earlier stages removed.",
        )
    pairs = [] if kind in ("sft", "grpo") else tokens_of(held_out, "dpo")[0]
    notes = (*notes, *more_notes, *unlearned_notes(train))
    return Rows(train, tokens_of(held_out, kind)[0], pairs, num_dropped, notes)
