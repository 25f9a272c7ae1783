"""Alerts, what is weighed with them, and what becomes of them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from tasks.contracts.base import Contract
from tasks.contracts.run import RetrainOutcome


class Alert(Contract):
    """A firing alert, reduced to what a retrain needs; labels and annotations stay with the sender."""

    fingerprint: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="The sender's name for this very alert.")
    model: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The model that it concerns.")
    name: str = Field(min_length=1, max_length=100, description="The alert rule's name.")
    signal: str = Field(
        min_length=1, max_length=100, description="What was measured: drift, feedback, latency. Two alerts may share it."
    )
    sender: Literal["alertmanager", "grafana", "json", "check", "person"] = Field("person", description="Who sent it.")
    starts_at: AwareDatetime = Field(description="When it began to fire.")
    window_start: AwareDatetime = Field(description="Begin of the time whose rows it is about.")
    window_end: AwareDatetime = Field(description="End of that time.")

    @model_validator(mode="after")
    def _window_has_length(self) -> Self:
        if self.window_start >= self.window_end:
            raise ValueError("window_start must lie before window_end")
        return self


class RetrainHistory(Contract):
    """What Prefect remembers about a model's retrains, read when an alert is weighed.

    ``last_ended`` counts runs that came to an end of their own, completed or failed; ``learned_until`` is the end of the
    data of the last completed one. ``signals`` are the different signals that fired lately, the alert's own included.
    """

    open_runs: tuple[str, ...] = ()
    last_ended: AwareDatetime | None = None
    learned_until: AwareDatetime | None = None
    signals: tuple[str, ...] = ()


class NewRows(Contract):
    """Rows of a source that were made after ``since`` (None: ever) and until ``until``."""

    num_rows: int = Field(ge=0)
    since: AwareDatetime | None
    until: AwareDatetime


class AlertDecision(Contract):
    """Whether an alert becomes a retrain, every reason in plain words, and the window of rows it would read."""

    retrain: bool
    reasons: tuple[str, ...]
    created_after: AwareDatetime | None
    created_before: AwareDatetime


class AlertOutcome(Contract):
    """What became of an alert: the decision, and the retrain where there was one."""

    alert: Alert
    decision: AlertDecision
    outcome: RetrainOutcome | None = None
