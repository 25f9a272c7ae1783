"""The file of `perennial deploy`: the deployments, validated as a whole before any call to a server."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Self

from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from prefect.client.schemas.schedules import CronSchedule
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.support.config import RetrainConfig, Section, load_settings, settings_of
from tasks.core.errors import ConfigError

_NAME = r"^[^/%&><\x00-\x1f\x7f]{1,200}$"


class Schedule(Section):
    """A schedule of a deployment; a repeated deploy updates the schedule of the same slug."""

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")
    cron: str
    timezone: str = "UTC"
    active: bool = True

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        self.at()
        return self

    def at(self) -> CronSchedule:
        """The schedule as Prefect's type."""
        return CronSchedule(cron=self.cron, timezone=self.timezone)


class Limit(Section):
    """Maximum number of active runs of a deployment, and what happens to further ones."""

    limit: int = Field(ge=1)
    collision_strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.ENQUEUE


class Pool(Section):
    """The work pool whose workers execute the runs."""

    name: str = Field(pattern=_NAME)


class Deployment(Section):
    """One deployment of a flow."""

    name: str = Field(pattern=_NAME)
    entrypoint: str = Field(min_length=1)
    description: str = ""
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = Field(default_factory=dict)
    form: tuple[str, ...] | None = None
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: Limit | None = None
    work_pool: Pool

    @model_validator(mode="after")
    def _names_each_schedule_once(self) -> Self:
        duplicates = [slug for slug, count in Counter(each.slug for each in self.schedules).items() if count > 1]
        if duplicates:
            raise ValueError(f"the schedule {duplicates[0]} is duplicated")
        return self


class DeploymentFile(BaseModel):
    """The whole file; other keys, which Prefect's own command reads, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deployments: tuple[Deployment, ...] = Field(min_length=1)


def read_deployments(path: Path) -> tuple[Deployment, ...]:
    """The deployments of a file.

    Raises:
        ConfigError: It cannot be read, or has faults; all of them are listed.
    """
    try:
        deployments = load_settings(path, DeploymentFile).deployments
    except ConfigError as error:
        todo = "Correct it, or the path; deployments/prefect.yaml shows its form."
        raise ConfigError(error.where, error.found, "a file of Prefect deployments", todo) from error
    counts = Counter((deployment.entrypoint, deployment.name) for deployment in deployments)
    for (_, name), count in counts.items():
        if count > 1:
            raise ConfigError(f"{path}, {name}", "two deployments of one flow", "one of each name", "Rename one of them.")
    return deployments


def retrains_in(deployments: tuple[Deployment, ...], path: Path) -> tuple[RetrainConfig, ...]:
    """The configurations in the deployments, one per model.

    Raises:
        ConfigError: One has faults.
    """
    found: dict[str, RetrainConfig] = {}
    for deployment in deployments:
        config = deployment.parameters.get("config")
        if isinstance(config, dict):
            settings = settings_of(config, RetrainConfig, f"{path}, configuration of {deployment.name}")
            found.setdefault(settings.name, settings)
    return tuple(found.values())


def identity_of(path: Path) -> str:
    """The identity of a file: its path relative to the current folder, or the absolute path outside of it."""
    absolute = Path(os.path.normpath(path.absolute()))
    return absolute.relative_to(Path.cwd()).as_posix() if absolute.is_relative_to(Path.cwd()) else absolute.as_posix()
