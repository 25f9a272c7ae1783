"""The request of an operator in Prefect's form: a few typed fields that override the deployment's configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from flows.support.config import RetrainConfig, Section
from tasks.core.errors import ConfigError
from tasks.core.timestamps import ensure_utc
from tasks.core.typed_text import PRINTABLE, Name
from tasks.training import BudgetConfig


class RunRequest(Section):
    """Why a person or an alert starts a run, and how it differs; empty fields keep the configured values."""

    reason: str = Field(
        min_length=3,
        max_length=500,
        pattern=PRINTABLE,
        description="Why now. Recorded with the model version and in the dossier.",
    )
    name: Name | None = Field(
        None,
        description="Who starts it. Where several people must approve (`registry.required_approvals`), this one may not.",
    )
    rows_from: datetime | None = Field(
        None, description="Train on rows created at this time or later (UTC). Empty: as configured."
    )
    rows_until: datetime | None = Field(
        None, description="Train on rows created before this time (UTC). Empty: up to the newest row."
    )
    max_device_hours: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Do not train if it would take longer. The configured ceiling applies too.",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        le=10_000_000,
        description="Do not train if it would cost more, in the configured currency. The configured ceiling applies too.",
    )
    leave_out: tuple[Literal["preference_training", "red_team"], ...] = Field(
        (),
        max_length=2,
        description="Stages to skip. Without the red team the promotion requires manual approval.",
    )
    approval: Literal["as_configured", "always"] = Field(
        "as_configured", description="`always`: the promotion requires manual approval, whatever the gate decides."
    )

    @model_validator(mode="after")
    def _a_window_has_a_length(self) -> Self:
        if self.rows_from and self.rows_until and ensure_utc(self.rows_from) >= ensure_utc(self.rows_until):
            raise ValueError("rows_from must lie before rows_until")
        return self


def as_requested(config: RetrainConfig, request: RunRequest | None) -> RetrainConfig:
    """The configuration with the overrides of a request; unchanged without a request.

    A request never weakens a gate: ceilings only fall, and without the red team the promotion requires manual approval.

    Raises:
        ConfigError: The request limits the cost, and no prices are configured.
    """
    if request is None:
        return config
    changes: dict[str, Any] = {"training": config.training.model_copy(update={"budget": _budget(config, request)})}
    if request.rows_from or request.rows_until:
        config = config.within(request.rows_from, request.rows_until)
    if "preference_training" in request.leave_out:
        changes["preferences"] = None
    if "red_team" in request.leave_out:
        changes["redteam"] = config.redteam.model_copy(update={"enabled": False})
        changes["promotion"] = config.promotion.model_copy(update={"safety_guards": ()})
    if request.approval == "always" or "red_team" in request.leave_out:
        changes["registry"] = config.registry.model_copy(update={"approval": "always"})
    return config.model_copy(update=changes)


def reason_of(request: RunRequest | None) -> str | None:
    """Why a person or an alert started the run; None for a scheduled run."""
    return request.reason if request else None


def starter_of(request: RunRequest | None) -> str | None:
    """Who started the run, by their own statement; None for a schedule or an alert."""
    return request.name if request else None


def _budget(config: RetrainConfig, request: RunRequest) -> BudgetConfig:
    budget = config.training.budget
    if request.max_cost is not None and not budget.price_per_device_hour:
        raise ConfigError(
            "request.max_cost",
            f"{request.max_cost:g} {budget.currency} and no prices",
            "training.budget.price_per_device_hour in the deployment's configuration",
            "Set the prices there, or limit device hours instead.",
        )
    return budget.model_copy(
        update={
            "max_device_hours": _lower(budget.max_device_hours, request.max_device_hours),
            "max_cost": _lower(budget.max_cost, request.max_cost),
        }
    )


def _lower(first: float | None, second: float | None) -> float | None:
    return min((limit for limit in (first, second) if limit is not None), default=None)
