"""Settings of the frozen test set, of decontamination and of the train and validation split."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class SplitConfig(FrozenModel):
    """How rows are shared out; whole near-duplicate groups go to one side."""

    test_share: float = Field(
        0.15, gt=0.0, le=0.5, description="Share of the first snapshot's rows that is frozen for testing."
    )
    validation_share: float = Field(0.1, gt=0.0, le=0.5, description="Share of the training rows kept for validation.")
    max_test_rows: int | None = Field(None, ge=1, description="At most so many rows are frozen; none: no limit.")
    fresh_share: float = Field(
        0.15,
        ge=0.0,
        le=0.5,
        description="About this share of the newest rows, those newer than every frozen one, is held out of this run's "
        "training as the fresh set, and learned from when it is no longer new. 0: there is none.",
    )
    fresh_days: int = Field(
        92, ge=1, le=3_660, description="Length of the newest window, counted back from the newest row; 92 is a quarter."
    )
    max_validation_rows: int | None = Field(
        None, ge=1, description="At most so many rows are for validation; none: no limit."
    )
    seed: int = Field(0, ge=0, description="Another seed shares the groups out differently.")
    near_duplicate_threshold: float = Field(
        0.7,
        ge=0.5,
        le=1.0,
        description="Jaccard similarity of character 5-grams from which a prompt is too near a frozen one to train on.",
    )
