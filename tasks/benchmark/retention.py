"""Retention: the general knowledge that a model keeps through fine-tuning, as a guard against catastrophic forgetting.

Each general question has a right answer and wrong ones of the same form. Fine-tuning changes a model's style, which makes
every short answer less likely, so the likelihood of the right answer alone would mistake a new style for lost knowledge. The
metric is the share of probability of the right answer among all offered ones; the likelihood is recorded beside it. Nothing
is generated: a few hundred short sequences are scored in one pass each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from tasks.modeling.generation import LoadedModel

ITEMS_FILE = Path(__file__).parent / "data" / "retention.jsonl"
"""General knowledge, arithmetic, language, reasoning, instructions and formats; written for this project, under its
licence."""

RETENTION_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("retention", pa.float64()),
        pa.field("retention_nll", pa.float64()),
    ]
)
"""One row per general question: a column for each metric that is measured on them."""


@dataclass(frozen=True)
class GeneralItem:
    """A general question with its right answer and wrong ones of the same form."""

    id: str
    kind: str
    question: str
    answer: str
    alternatives: tuple[str, ...]

    @property
    def choices(self) -> tuple[str, ...]:
        """All offered answers, the right one first."""
        return (self.answer, *self.alternatives)


def general_items(path: Path = ITEMS_FILE) -> list[GeneralItem]:
    """The general questions of the package, in the order of the file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [GeneralItem(**{**entry, "alternatives": tuple(entry["alternatives"])}) for entry in map(json.loads, lines)]


def score_retention(
    items: Sequence[GeneralItem],
    loaded: LoadedModel,
    *,
    batch_size: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """A model's scores on the general questions (:data:`RETENTION_SCHEMA`); the batch size changes only rounding."""
    from tasks.modeling.generation import reply_likelihoods

    offered = [(item.question, choice) for item in items for choice in item.choices]
    likelihoods = reply_likelihoods(
        loaded,
        [[{"role": "user", "content": question}] for question, _ in offered],
        [choice for _, choice in offered],
        batch_size=batch_size,
        on_progress=on_progress,
    )
    rows, start = [], 0
    for item in items:
        choices = likelihoods[start : start + len(item.choices)]
        start += len(item.choices)
        rows.append(
            {
                "id": item.id,
                "kind": item.kind,
                "retention": share_of_first([choice.nll for choice in choices]),
                "retention_nll": choices[0].nll / choices[0].num_tokens,
            }
        )
    return pa.Table.from_pylist(rows, schema=RETENTION_SCHEMA)


def share_of_first(nlls: Sequence[float]) -> float:
    """The share of probability that the first choice has among all, from their negative log-likelihoods; 0 to 1."""
    least = min(nlls)
    weights = [math.exp(least - nll) for nll in nlls]
    return weights[0] / sum(weights)
