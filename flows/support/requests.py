"""What an operator asks of a run in Prefect's form: a few typed answers, laid over the deployment's configuration."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from flows.support.config import RetrainConfig, Section
from tasks.core.errors import ConfigError
from tasks.core.timestamps import aware
from tasks.core.typed_text import PRINTABLE
from tasks.training import BudgetConfig


class RunRequest(Section):
    """Why a run was started by hand or by an alert, and how it differs; what is left empty is as configured."""

    reason: str = Field(
        min_length=3,
        max_length=500,
        pattern=PRINTABLE,
        description="Why now. Goes on record with the model version and in the dossier.",
    )
    rows_from: datetime | None = Field(
        None, description="Learn from rows made at this time or later (UTC). Empty: from where the configuration begins."
    )
    rows_until: datetime | None = Field(
        None, description="Learn from rows made before this time (UTC). Empty: to the newest one."
    )
    max_device_hours: float | None = Field(
        None,
        gt=0,
        le=10_000,
        description="Refuse to train when it would take longer. The configured ceiling holds too.",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        le=10_000_000,
        description="Refuse to train when it would cost more, in the configured currency. The configured ceiling holds too.",
    )
    leave_out: tuple[Literal["preference_training", "red_team"], ...] = Field(
        (),
        max_length=2,
        description="Stages to leave out. Without the red team a person must approve the promotion.",
    )
    approval: Literal["as_configured", "always"] = Field(
        "as_configured", description="`always`: a person decides whatever the gate says."
    )

    @model_validator(mode="after")
    def _a_window_has_a_length(self) -> Self:
        if self.rows_from and self.rows_until and aware(self.rows_from) >= aware(self.rows_until):
            raise ValueError("rows_from must lie before rows_until")
        return self


def as_requested(config: RetrainConfig, request: RunRequest | None) -> RetrainConfig:
    """The configuration with an operator's wishes laid over it; as it is without a request.

    A wish never weakens a gate: ceilings only fall, and what is not attacked is not promoted without a person.

    Raises:
        ConfigError: A cost is to be kept and nothing has a price.
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
    """Why a person or an alert started the run; None for a run that was merely due."""
    return request.reason if request else None


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
    return min((one for one in (first, second) if one is not None), default=None)
