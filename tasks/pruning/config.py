"""What is kept, and for how long."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class PruningConfig(FrozenModel):
    """What `perennial prune` keeps beside versions in use (aliased, under rollout, asked about) and all that they need."""

    keep_versions: int = Field(
        8, ge=1, le=10_000, description="So many newest model versions are kept whatever their age: two years of quarters."
    )
    keep_days: float = Field(
        400.0,
        ge=1.0,
        le=36_500.0,
        description="Versions, snapshots and other stored data younger than this are kept, and so is what runs younger "
        "than this have in their dossiers: a year, so that quarters stay comparable.",
    )
    keep_work_days: float = Field(
        14.0,
        ge=1.0,
        le=36_500.0,
        description="Work folders (a training's checkpoints) untouched for longer were left by runs that nobody continued.",
    )
