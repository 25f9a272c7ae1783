"""What is kept, and for how long."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class PruningConfig(FrozenModel):
    """What `perennial prune` keeps beside versions in use (aliased, under rollout, awaiting approval) and their lineage."""

    keep_versions: int = Field(
        8, ge=1, le=10_000, description="Number of newest model versions that are kept at any age: two years of quarters."
    )
    keep_days: float = Field(
        400.0,
        ge=1.0,
        le=36_500.0,
        description="Versions, snapshots and other stored data younger than this are kept, and the data in the dossiers of "
        "runs younger than this: a year, so that quarters stay comparable.",
    )
    keep_work_days: float = Field(
        14.0,
        ge=1.0,
        le=36_500.0,
        description="Work folders (a training's checkpoints) untouched for longer belong to runs that were not continued.",
    )
