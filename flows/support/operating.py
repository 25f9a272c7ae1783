"""How a model is operated: its schedules, its owner, how its alerts are weighed. `perennial deploy models/` reads it."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Literal, Self, get_args

from prefect.client.schemas.schedules import CronSchedule
from pydantic import Field, model_validator

from tasks.alerts import AlertPolicy
from tasks.contracts.base import FrozenModel
from tasks.core.typed_text import Name

_TAG = r"^[^\s,\x00-\x1f\x7f][^,\x00-\x1f\x7f]{0,99}$"


class Schedule(FrozenModel):
    """A schedule of a deployment; a repeated deploy updates the schedule of the same slug."""

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$", description="Its name among the schedules of the deployment.")
    cron: str = Field(description="When, in the format of cron: `0 2 1 1,4,7,10 *`.")
    timezone: str = Field("UTC", description="The zone of the time, such as `Europe/Berlin`.")
    active: bool = Field(True, description="Whether it starts runs.")

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        self.at()
        return self

    def at(self) -> CronSchedule:
        """The schedule as Prefect's type."""
        return CronSchedule(cron=self.cron, timezone=self.timezone)


Event = Literal["requested", "expiring", "expired", "promoted", "held", "aborted", "failed", "leaked", "violated"]


class NotifyTarget(FrozenModel):
    """Whom `perennial notify` notifies. The address is a secret: it stands in a block or an environment variable."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$", description="Its name in logs; it never shows the address.")
    block: str | None = Field(
        None,
        description="Prefect Secret block with the address, in Apprise's form: `mailto://...`, `slack://...`, `json://...`.",
    )
    variable: str = Field(
        "PERENNIAL_NOTIFY_URL",
        pattern=r"^[A-Z][A-Z0-9_]{0,99}$",
        description="Environment variable with the address, where no block is named.",
    )
    events: tuple[Event, ...] = Field(
        get_args(Event),
        min_length=1,
        description="What is reported: a request is open, expires within a day, or expired; a version was promoted or held; "
        "a rollout was aborted; a run failed; scrubbed rows still held personal data; production violates a limit.",
    )


class OperateConfig(FrozenModel):
    """How `perennial deploy models/` deploys the model; a retrain itself does not read it."""

    owner: str | None = Field(
        None, pattern=_TAG, description="The team or person that answers for the model: the tag `owner:...` in Prefect."
    )
    tags: tuple[Annotated[str, Field(pattern=_TAG)], ...] = Field(
        (), max_length=20, description="Further tags of its deployments, beside `perennial`, `model:...` and `owner:...`."
    )
    schedules: tuple[Schedule, ...] = Field((), max_length=20, description="When it retrains.")
    checks: tuple[Schedule, ...] = Field((), max_length=20, description="When its production is checked.")
    policy: AlertPolicy = Field(AlertPolicy(), description="When an alert becomes a retrain.")
    priority: Literal["high", "normal", "low"] = Field(
        "normal", description="Which runs a worker takes first: the work queue `high`, `default` or `low` of each pool."
    )
    approvers: tuple[Name, ...] = Field(
        (), max_length=50, description="Who may answer its requests for approval, as `registry.approvers`; none: anybody."
    )
    notify: tuple[NotifyTarget, ...] = Field((), max_length=20, description="Who is notified of what happens to the model.")

    @model_validator(mode="after")
    def _names_each_target_once(self) -> Self:
        if len({target.name for target in self.notify}) < len(self.notify):
            raise ValueError("notify: two targets have one name")
        return self

    @model_validator(mode="after")
    def _names_each_schedule_once(self) -> Self:
        for name, schedules in (("schedules", self.schedules), ("checks", self.checks)):
            reject_duplicates(schedules, name)
        return self


def reject_duplicates(schedules: tuple[Schedule, ...], name: str = "schedules") -> None:
    """Rejects two schedules of one slug.

    Raises:
        ValueError: A slug occurs twice.
    """
    duplicates = [slug for slug, count in Counter(each.slug for each in schedules).items() if count > 1]
    if duplicates:
        raise ValueError(f"{name}: the schedule {duplicates[0]} is duplicated")
