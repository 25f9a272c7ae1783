"""The file of `perennial deploy`: the deployments, validated as a whole before any call to a server."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from prefect.client.schemas.objects import ConcurrencyLimitStrategy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flows.support.config import RetrainConfig, Section, load_settings, settings_of
from flows.support.operating import Schedule, reject_duplicates
from tasks.core.errors import ConfigError

DEFAULT_QUEUE = "default"
"""The queue that every pool of Prefect has."""
_NAME = r"^[^/%&><\x00-\x1f\x7f]{1,200}$"


class Limit(Section):
    """Maximum number of active runs of a deployment, and what happens to further ones."""

    limit: int = Field(ge=1)
    collision_strategy: ConcurrencyLimitStrategy = ConcurrencyLimitStrategy.ENQUEUE


class Pool(Section):
    """The work pool whose workers execute the runs, and the queue in it."""

    name: str = Field(pattern=_NAME)
    work_queue_name: str = Field(DEFAULT_QUEUE, pattern=_NAME)


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
        reject_duplicates(self.schedules)
        return self


class DeploymentFile(BaseModel):
    """The whole file; other keys, which Prefect's own command reads, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    deployments: tuple[Deployment, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Source:
    """The deployments that come from one file.

    Attributes:
        path: The file.
        deployments: What it describes.
        model: The registered model that they write, where the file is that of one model.
    """

    path: Path
    deployments: tuple[Deployment, ...]
    model: str | None = None

    @property
    def identity(self) -> str:
        """The file's path relative to the current folder, or the absolute path outside of it."""
        return identity_of(self.path)


@dataclass(frozen=True)
class FileSet:
    """The files of one deploy.

    Attributes:
        sources: The files, with their deployments.
        pools: The folder of the templates of the pools' Jobs.
        folders: Identities of the folders that were named as a whole: a file of theirs that is gone is noticed.
    """

    sources: tuple[Source, ...]
    pools: Path
    folders: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: Path) -> FileSet:
        """One file of deployments, such as ``deployments/prefect.yaml``.

        Raises:
            ConfigError: See :func:`read_deployments`.
        """
        return cls((Source(path, read_deployments(path)),), path.parent / "pools")

    def is_gone(self, file: str) -> bool:
        """Whether a file of one of the folders is no longer there."""
        known = {source.identity for source in self.sources}
        return file not in known and str(PurePosixPath(file).parent) in self.folders

    def covers(self, file: str) -> bool:
        """Whether this deploy decides what a file contains."""
        return self.is_gone(file) or any(source.identity == file for source in self.sources)


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
    reject_namesakes((Source(path, deployments),))
    return deployments


def reject_namesakes(sources: tuple[Source, ...]) -> None:
    """Rejects two deployments of one flow and one name.

    Raises:
        ConfigError: There are two.
    """
    seen: dict[tuple[str, str], Path] = {}
    for source in sources:
        for deployment in source.deployments:
            key = deployment.entrypoint, deployment.name
            if key in seen:
                found = "two deployments of one flow" + (f", the other in {seen[key]}" if seen[key] != source.path else "")
                raise ConfigError(f"{source.path}, {deployment.name}", found, "one of each name", "Rename one of them.")
            seen[key] = source.path


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
