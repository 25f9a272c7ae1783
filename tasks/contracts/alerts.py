"""Alerts, the history that a decision on them considers, and their outcome."""

from __future__ import annotations

from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from tasks.contracts.base import Contract
from tasks.contracts.run import RetrainOutcome


class Alert(Contract):
    """A firing alert, reduced to what a retrain needs, without the sender's labels and annotations."""

    fingerprint: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="The sender's identifier of this alert.")
    model: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The model that the alert is about.")
    name: str = Field(min_length=1, max_length=100, description="The alert rule's name.")
    signal: str = Field(
        min_length=1, max_length=100, description="What was measured: drift, feedback, latency. Two alerts may share it."
    )
    sender: str = Field("person", pattern=r"^[a-z0-9][a-z0-9-]{0,39}$", description="Who sent it.")
    starts_at: AwareDatetime = Field(description="When the alert began to fire.")
    window_start: AwareDatetime = Field(description="Start of the window of rows that the alert is about.")
    window_end: AwareDatetime = Field(description="End of that window.")

    @model_validator(mode="after")
    def _window_has_length(self) -> Self:
        if self.window_start >= self.window_end:
            raise ValueError("window_start must lie before window_end")
        return self


class RetrainHistory(Contract):
    """The retrains of a model in Prefect's database, read for the decision on an alert.

    ``last_ended`` is the end of the last run that completed or failed; ``learned_until`` is the end of the data of the last
    completed one. ``signals`` are the distinct signals that fired recently, including that of the alert.
    """

    open_runs: tuple[str, ...] = ()
    last_ended: AwareDatetime | None = None
    learned_until: AwareDatetime | None = None
    signals: tuple[str, ...] = ()


class NewRows(Contract):
    """Number of rows of a source that were created after ``since`` (None: no limit) and until ``until``."""

    num_rows: int = Field(ge=0)
    since: AwareDatetime | None
    until: AwareDatetime


class AlertDecision(Contract):
    """Whether an alert starts a retrain, all reasons as sentences, and the window of rows that it would read."""

    retrain: bool
    reasons: tuple[str, ...]
    created_after: AwareDatetime | None
    created_before: AwareDatetime


class AlertOutcome(Contract):
    """The outcome of an alert: the decision, and the retrain if it was started."""

    alert: Alert
    decision: AlertDecision
    outcome: RetrainOutcome | None = None
