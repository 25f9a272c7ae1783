"""Settings of the bias audit."""

from __future__ import annotations

from pydantic import Field

from tasks.contracts.base import FrozenModel


class BiasConfig(FrozenModel):
    """Which groups are compared, the smallest group that is assessed, and how far outcomes may differ."""

    audit_declared_groups: bool = Field(True, description="Compare the groups that rows declare in their `groups` column.")
    audit_mentioned_terms: bool = Field(
        True, description="Compare rows by the demographic terms their instruction mentions."
    )
    min_group_size: int = Field(30, ge=10, le=100_000, description="Smaller groups are not assessable.")
    num_resamples: int = Field(500, ge=100, le=10_000, description="Bootstrap resamples behind each interval.")
    max_rate_difference: float = Field(
        0.1, gt=0.0, le=1.0, description="Allowed difference of a refusal or label rate between a group and the rest."
    )
    max_length_difference: float = Field(
        0.25, gt=0.0, le=10.0, description="Allowed difference of mean reply length, as a share of the overall mean."
    )
    reweight_by: str | None = Field(
        None,
        description="A declared group; row weights under which the outcome does not depend on it are written for export.",
    )
    seed: int = Field(0, ge=0, description="Seed of the bootstrap.")
