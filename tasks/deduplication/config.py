"""Settings of deduplication."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contracts.base import FrozenModel


class DeduplicationConfig(FrozenModel):
    """What counts as the same row, and what happens to it."""

    exact: bool = Field(
        True, description="Drop rows whose prompt, reply, context and label are equal up to case and spacing."
    )
    near: Literal["drop", "group"] = Field(
        "drop",
        description="`drop` removes rows whose prompt and reply nearly equal another row's; `group` keeps them. Either way "
        "rows with nearly equal prompts share a `split_group`, so that no cluster stands in both train and test.",
    )
    near_duplicate_threshold: float = Field(
        0.7, ge=0.5, le=1.0, description="Jaccard similarity of character 5-grams from which two texts are near duplicates."
    )
    max_dropped_share: float = Field(
        0.5,
        ge=0.0,
        le=1.0,
        description="The run stops when more than this share of the rows would be dropped as duplicates.",
    )
