"""The connection to MLflow, for runs and for the registry: address, errors, experiments.

Three of MLflow's defaults are wrong for a pipeline and are changed here. Without ``MLFLOW_TRACKING_URI`` MLflow writes
``./mlflow.db``: here that is an error. With a SQLite URI it writes artifacts to ``./mlruns``: here they are beside the
database file. In an outage its seven retries block a call for minutes: here a call fails after seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.addresses import first_line
from tasks.core.ensuring import AlreadyThereError, ensure
from tasks.core.errors import ConfigError, MissingDependencyError, RegistryError, RegistryOutageError
from tasks.tracking.artifact_paths import artifact_root, follow_moved_artifacts
from tasks.tracking.database import database_errors, open_database

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Defaults of the environment; set on import of this module, because MLflow reads some of them on import."""

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

_GATEWAY = re.compile(r"failed with error code 50[234]\b")
_PERMANENT = re.compile(r"read-?only|disk|no such|does not exist|denied|authentication|password", re.IGNORECASE)
"""Messages of a database that is available and rejects the call, or cannot execute it."""


def tracking_uri() -> str:
    """The configured MLflow store.

    Raises:
        ConfigError: ``MLFLOW_TRACKING_URI`` is not set.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI", "").strip()
    if not uri:
        raise ConfigError(
            "environment variable MLFLOW_TRACKING_URI",
            "nothing",
            "an MLflow server or database, such as http://localhost:5000 or sqlite:////srv/perennial/mlflow.db",
            "Set it, or start the run with `perennial retrain`, which sets an embedded one.",
        )
    return uri


def is_served() -> bool:
    """Whether MLflow is a server, which may have accounts, and not only a database."""
    return tracking_uri().startswith(("http://", "https://"))


def connect() -> Any:
    """An ``MlflowClient`` for :func:`tracking_uri`, for runs and for the registry.

    Raises:
        ConfigError: The URI is not set, or MLflow cannot open it.
        MissingDependencyError: MLflow is not installed.
        StoreError: The database cannot be read or written: a full disk, a file that is no database.
    """
    uri = tracking_uri()
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "tasks.tracking", "no package `mlflow`", "it installed", "pip install 'perennial-llm[registry]'"
        ) from error
    try:
        open_database(uri)
        if uri.startswith("sqlite:///"):
            follow_moved_artifacts(Path(uri.removeprefix("sqlite:///")))
        with database_errors(uri):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, OSError) as error:
        raise ConfigError(
            "environment variable MLFLOW_TRACKING_URI",
            f"{uri} ({first_line(error)})",
            "an MLflow server, or a database whose folder is writable",
            "Correct the URI; folder stores such as ./mlruns are no longer supported by MLflow.",
        ) from None  # MLflow's own message contains the address with its password


@contextmanager
def registry_errors(where: str) -> Iterator[None]:
    """Turns MLflow's errors inside the block into a :class:`~tasks.core.errors.RegistryError`.

    A missing response is a :class:`~tasks.core.errors.RegistryOutageError`: the same call may be repeated.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if is_outage(error):
            raise RegistryOutageError(
                where,
                f"no response ({first_line(error)})",
                "MLflow to respond",
                "Check that the server at MLFLOW_TRACKING_URI runs, then run again: finished stages are kept.",
            ) from None
        raise RegistryError(
            where,
            f"{error.error_code}: {first_line(error)}",
            "MLflow to accept the call",
            "Check that the server at MLFLOW_TRACKING_URI runs and that this account may write, then run again.",
        ) from None  # MLflow's own message may contain the address with its password


def is_outage(error: BaseException) -> bool:
    """Whether MLflow's error is an outage: no connection, a gateway without its server, an unavailable database.

    A full disk, a missing file, a wrong password and rejected calls are not: waiting does not resolve them.
    """
    import requests

    unreachable = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for cause in chain:
        if type(cause).__name__ in ("OperationalError", "InterfaceError"):  # SQLAlchemy's, and the drivers'
            return not _PERMANENT.search(str(cause))
        if isinstance(cause, unreachable):
            return True
    return getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE" or _GATEWAY.search(str(error)) is not None


@contextmanager
def already_there() -> Iterator[None]:
    """Turns MLflow's error for an existing object into the exception that :func:`tasks.core.ensuring.ensure` expects."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            raise AlreadyThereError from error
        raise


def ensure_experiment(client: Any, name: str, tags: Mapping[str, str] | None = None) -> tuple[Any, bool]:
    """The experiment ``name``, and whether this call created it, with ``tags``; safe among concurrent processes."""

    def make() -> None:
        with already_there():
            client.create_experiment(name, artifact_location=_artifact_location(), tags=dict(tags or {}))

    return ensure(f"MLflow experiment {name!r}", lambda: client.get_experiment_by_name(name), make)


def experiment_id(client: Any, name: str) -> str:
    """The id of the experiment ``name``, which is created if absent."""
    return str(ensure_experiment(client, name)[0].experiment_id)


def _artifact_location() -> str | None:
    """The artifact folder of a new experiment: beside a SQLite file, else the default of the server (None)."""
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    uri = tracking_uri()
    if root is None and uri.startswith("sqlite:///"):
        root = artifact_root(Path(uri.removeprefix("sqlite:///")))
    return root
