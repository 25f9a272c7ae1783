"""Settings of the benchmark."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]


class BenchmarkConfig(BaseModel):
    """How models answer the frozen examples, and how the answers are scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_new_tokens: int = Field(128, ge=1, le=8192, description="Replies are cut here; they end earlier by themselves.")
    batch_size: int = Field(32, ge=1, le=1024, description="Prompts per generation batch, sorted by length.")
    max_examples: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="Score only this many examples, the same for every model (chosen by the hash of their ids). None: all.",
    )
    label_pattern: Pattern | None = Field(
        None,
        description="Regular expression that finds the label in a reply: its first group, or the whole match; "
        "`^\\[(\\w+)\\]` finds a category tag. "
        "None: the reply's first line is the label's name, give or take case and punctuation.",
    )
    format_pattern: Pattern | None = Field(
        None,
        description="Regular expression that a well-formed reply matches from start to end (`.` matches newlines too). "
        "None: format is not measured.",
    )
    retention: bool = Field(
        True,
        description="Weigh general questions too, which show what fine-tuning made the model forget: a few hundred short "
        "sequences per model, no generation.",
    )
    min_slice_examples: int = Field(
        20, ge=2, le=1_000_000, description="Slices (by label, group, length, script) with fewer examples get no interval."
    )
    num_resamples: int = Field(1_000, ge=100, le=100_000, description="Bootstrap resamples behind each score's interval.")
    confidence: float = Field(0.95, ge=0.5, lt=1.0, description="Of the two-sided intervals.")
    seed: int = Field(0, ge=0, description="Seed of the bootstrap. Generation is greedy and has none.")
