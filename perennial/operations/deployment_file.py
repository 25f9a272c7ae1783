"""The file of `perennial deploy`: which deployments there are to be, checked whole before a server is touched."""

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
    """When a deployment runs by itself; the slug names it, so that deploying again updates it instead of adding another."""

    slug: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,99}$")
    cron: str
    timezone: str = "UTC"
    active: bool = True

    @model_validator(mode="after")
    def _is_a_schedule(self) -> Self:
        self.at()
        return self

    def at(self) -> CronSchedule:
        """The times, as Prefect takes them."""
        return CronSchedule(cron=self.cron, timezone=self.timezone)


class Limit(Section):
    """How many runs of a deployment may be open, and what becomes of the next one."""

    limit: int = Field(ge=1)
    collision_strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.ENQUEUE


class Pool(Section):
    """The work pool whose workers take the runs."""

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
        twice = [slug for slug, count in Counter(one.slug for one in self.schedules).items() if count > 1]
        if twice:
            raise ValueError(f"the schedule {twice[0]} stands here twice")
        return self


class DeploymentFile(BaseModel):
    """The whole file; what else Prefect's own command would read in it is left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deployments: tuple[Deployment, ...] = Field(min_length=1)


def read_deployments(path: Path) -> tuple[Deployment, ...]:
    """The deployments of a file.

    Raises:
        ConfigError: It cannot be read, or has faults; all of them are named.
    """
    try:
        deployments = load_settings(path, DeploymentFile).deployments
    except ConfigError as error:
        todo = "Correct it, or the path; deployments/prefect.yaml shows its form."
        raise ConfigError(error.where, error.found, "a file of Prefect deployments", todo) from error
    twice = [entry for entry, count in Counter((one.entrypoint, one.name) for one in deployments).items() if count > 1]
    if twice:
        name = twice[0][1]
        raise ConfigError(f"{path}, {name}", "two deployments of one flow", "one of each name", "Rename one of them.")
    return deployments


def retrains_in(deployments: tuple[Deployment, ...], path: Path) -> tuple[RetrainConfig, ...]:
    """The configurations that the deployments carry, one for each model.

    Raises:
        ConfigError: One has faults.
    """
    found: dict[str, RetrainConfig] = {}
    for one in deployments:
        config = one.parameters.get("config")
        if isinstance(config, dict):
            settings = settings_of(config, RetrainConfig, f"{path}, configuration of {one.name}")
            found.setdefault(settings.name, settings)
    return tuple(found.values())


def identity_of(path: Path) -> str:
    """What a file is known by: its path from the folder that entrypoints are relative to, or the whole one outside of it."""
    whole = Path(os.path.normpath(path.absolute()))
    return whole.relative_to(Path.cwd()).as_posix() if whole.is_relative_to(Path.cwd()) else whole.as_posix()
