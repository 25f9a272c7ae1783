"""The connection to MLflow, for runs and for the registry: its address, its errors, its experiments.

Three of MLflow's defaults are wrong for a pipeline and are changed here. Without ``MLFLOW_TRACKING_URI`` MLflow writes
``./mlflow.db``: here that is an error. With a SQLite URI it writes artifacts to ``./mlruns``: here they lie beside the
database file. In an outage its seven retries hold a call for minutes: here a call fails after seconds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.core.addresses import without_secrets
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
"""Where the environment does not say otherwise; set on import of this module, because MLflow reads some on its own."""

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

_GATEWAY = re.compile(r"failed with error code 50[234]\b")
_LASTING = re.compile(r"read-?only|disk|no such|does not exist|denied|authentication|password", re.IGNORECASE)
"""Words of a database that is there and does not want, or cannot."""


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
    """Whether MLflow is a server, which may have accounts, and not a bare database."""
    return tracking_uri().startswith(("http://", "https://"))


def connect() -> Any:
    """An ``MlflowClient`` for :func:`tracking_uri`, for runs and for the registry.

    Raises:
        ConfigError: The URI is not set, or is none that MLflow can open.
        MissingDependencyError: MLflow is not installed.
        StoreError: The database cannot be read or written: a full disk, a file that is none.
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
        ) from None  # MLflow's own message holds the address with its password


@contextmanager
def registry_errors(where: str) -> Iterator[None]:
    """Turns MLflow's refusals inside the block into a :class:`~tasks.core.errors.RegistryError`.

    No answer at all is a :class:`~tasks.core.errors.RegistryOutageError`: the same call may be made again.
    """
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if is_outage(error):
            raise RegistryOutageError(
                where,
                f"no answer ({first_line(error)})",
                "MLflow to answer",
                "Check that the server at MLFLOW_TRACKING_URI runs, then run again: finished stages are kept.",
            ) from None
        raise RegistryError(
            where,
            f"{error.error_code}: {first_line(error)}",
            "MLflow to accept the call",
            "Check that the server at MLFLOW_TRACKING_URI runs and that this account may write, then run again.",
        ) from None  # MLflow's own message may hold the address with its password


def is_outage(error: BaseException) -> bool:
    """Whether MLflow's error is that nobody answered: no connection, a gateway without its server, a database that is away.

    A full disk, a missing file, a wrong password and every refusal are none: waiting does not mend them.
    """
    import requests

    unreachable = (ConnectionError, TimeoutError, requests.ConnectionError, requests.Timeout)
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    for one in chain:
        if type(one).__name__ in ("OperationalError", "InterfaceError"):  # SQLAlchemy's, and the drivers'
            return not _LASTING.search(str(one))
        if isinstance(one, unreachable):
            return True
    return getattr(error, "error_code", None) == "TEMPORARILY_UNAVAILABLE" or _GATEWAY.search(str(error)) is not None


@contextmanager
def already_there() -> Iterator[None]:
    """Turns MLflow's answer that a thing exists into the exception that :func:`tasks.core.ensuring.ensure` knows."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            raise AlreadyThereError from error
        raise


def ensure_experiment(client: Any, name: str, tags: Mapping[str, str] | None = None) -> tuple[Any, bool]:
    """The experiment called ``name``, and whether it was made now, with ``tags``; also when two processes do so at once."""

    def make() -> None:
        with already_there():
            client.create_experiment(name, artifact_location=_artifact_location(), tags=dict(tags or {}))

    return ensure(f"MLflow experiment {name!r}", lambda: client.get_experiment_by_name(name), make)


def experiment_id(client: Any, name: str) -> str:
    """The id of the experiment called ``name``, which is made when absent."""
    return str(ensure_experiment(client, name)[0].experiment_id)


def _artifact_location() -> str | None:
    """Where a new experiment keeps artifacts: beside a SQLite file; elsewhere where the server says (None)."""
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    uri = tracking_uri()
    if root is None and uri.startswith("sqlite:///"):
        root = artifact_root(Path(uri.removeprefix("sqlite:///")))
    return root


def first_line(error: Exception) -> str:
    """An error's first line, short and without passwords."""
    return without_secrets(str(error).strip().split("\n", 1)[0])[:200]
