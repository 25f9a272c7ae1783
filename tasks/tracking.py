"""What a run leaves in MLflow while it works: parameters, metrics, artifacts, data sets. Training and the dossier use it.

Three of MLflow's defaults are wrong for a pipeline and are changed here, for :mod:`tasks.registry` too, which gets its
client from :func:`connect`. Without ``MLFLOW_TRACKING_URI`` MLflow writes ``./mlflow.db``: here that is an error. With a
SQLite URI it writes artifacts to ``./mlruns``: here they lie beside the database file. And in an outage its seven retries
hold a logging call for minutes: here a call fails after seconds, what it carried waits in memory and is delivered later,
so that a server's restart costs hours of training nothing.

Importing this module is cheap; MLflow itself is imported on first use.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.contracts import DatasetRef
from tasks.errors import ConfigError, MissingDependencyError, RegistryError

logger = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 30.0
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Where the environment does not say otherwise; set on import of this module, because MLflow reads some on its own."""

for _name, _value in _DEFAULTS.items():
    os.environ.setdefault(_name, _value)

_OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""Error codes of a server or database that does not answer; any other code is a refusal."""


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


def connect() -> Any:
    """An ``MlflowClient`` for :func:`tracking_uri`, for runs and for the registry.

    Raises:
        ConfigError: The URI is not set, or is none that MLflow can open.
        MissingDependencyError: MLflow is not installed.
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
        return MlflowClient(tracking_uri=uri, registry_uri=uri)
    except (MlflowException, OSError) as error:
        raise ConfigError(
            "environment variable MLFLOW_TRACKING_URI",
            f"{uri} ({_first_line(error)})",
            "an MLflow server, or a database whose folder is writable",
            "Correct the URI; folder stores such as ./mlruns are no longer supported by MLflow.",
        ) from error


@contextmanager
def registry_errors(where: str) -> Iterator[None]:
    """Turns MLflow's refusals and outages inside the block into one :class:`~tasks.errors.RegistryError`."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RegistryError(
            where,
            f"{error.error_code}: {_first_line(error)}",
            "MLflow to accept the call",
            "Check that the server at MLFLOW_TRACKING_URI runs and that this account may write, then run again.",
        ) from error


class RunStopped(Exception):
    """Raised inside :func:`open_run` by whoever decides that its work is not worth going on; the run shows as KILLED."""


class TrackingRun:
    """One open MLflow run; made by :func:`open_run`.

    In an outage calls return at once after the first failure and are delivered, in order, when MLflow answers again.

    Attributes:
        run_id: MLflow's id; pass it to :func:`open_run` to continue the run after a crash.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._waiting: deque[Callable[[], None]] = deque()
        self._retry_at = 0.0

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings. One that the run already has keeps its first value, as MLflow demands; a warning tells which."""

        def deliver() -> None:
            from mlflow.entities import Param

            known = self._client.get_run(self.run_id).data.params
            changed = sorted(name for name, value in params.items() if known.get(name, str(value)) != str(value))
            if changed:
                logger.warning("MLflow run %s keeps its first values of %s", self.run_id, ", ".join(changed))
            new = [Param(name, str(value)) for name, value in params.items() if name not in known]
            if new:
                self._client.log_batch(self.run_id, params=new)

        self._send(deliver)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs figures of one step, dated now."""
        now_milliseconds = int(time.time() * 1000)

        def deliver() -> None:
            from mlflow.entities import Metric

            batch = [Metric(name, float(value), now_milliseconds, step) for name, value in metrics.items()]
            self._client.log_batch(self.run_id, metrics=batch)

        self._send(deliver)

    def log_artifact_bytes(self, name: str, data: bytes) -> None:
        """Stores ``data`` as the run's artifact ``name``, which may have folders in it (``plots/loss.png``)."""
        path = PurePosixPath(name)

        def deliver() -> None:
            with tempfile.TemporaryDirectory() as folder:
                (Path(folder) / path.name).write_bytes(data)
                parent = str(path.parent) if path.parent != PurePosixPath(".") else None
                self._client.log_artifact(self.run_id, str(Path(folder) / path.name), parent)

        self._send(deliver)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets or replaces tags."""

        def deliver() -> None:
            from mlflow.entities import RunTag

            self._client.log_batch(self.run_id, tags=[RunTag(name, str(value)) for name, value in tags.items()])

        self._send(deliver)

    def log_dataset(self, ref: DatasetRef, context: str) -> None:
        """Records a data set as an input of the run: its hash, size and lineage, not its rows.

        Args:
            ref: The data set.
            context: What it was used for: ``training``, ``validation``, ``benchmark``.
        """

        def deliver() -> None:
            from mlflow.entities import Dataset, DatasetInput, InputTag

            dataset = Dataset(
                name=f"{ref.kind}-{ref.sha256[:12]}",
                digest=ref.sha256[:36],  # MLflow's column holds 36 characters
                source_type="perennial",
                source=ref.model_dump_json(),
                profile=f'{{"num_rows": {ref.num_rows}}}',
            )
            self._client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

        self._send(deliver)

    def _send(self, deliver: Callable[[], None]) -> None:
        self._waiting.append(deliver)
        if time.monotonic() >= self._retry_at:
            self._deliver_waiting()

    def _deliver_waiting(self) -> None:
        from mlflow.exceptions import MlflowException

        with registry_errors(f"MLflow run {self.run_id}"):
            while self._waiting:
                try:
                    self._waiting[0]()
                except MlflowException as error:
                    if error.error_code not in _OUTAGES:
                        self._waiting.popleft()
                        raise
                    self._retry_at = time.monotonic() + _RETRY_AFTER_SECONDS
                    logger.warning(
                        "MLflow does not answer; %d records of run %s wait: %s",
                        len(self._waiting),
                        self.run_id,
                        _first_line(error),
                    )
                    return
                self._waiting.popleft()

    def _close(self, status: str) -> None:
        self._waiting.append(lambda: self._client.set_terminated(self.run_id, status))
        self._deliver_waiting()
        if self._waiting:
            logger.error(
                "MLflow did not come back: run %s lacks its last %d records and shows as running; results are not affected",
                self.run_id,
                len(self._waiting),
            )


@contextmanager
def open_run(experiment: str, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> Iterator[TrackingRun]:
    """Opens an MLflow run, new or continued, and closes it as FINISHED, FAILED or KILLED.

    Args:
        experiment: Experiment name; created when absent.
        run_name: Shown in MLflow's lists.
        tags: Set at the start; never a record's text.
        run_id: Continues this run instead of making a new one.

    Raises:
        ConfigError: No usable ``MLFLOW_TRACKING_URI``.
        RegistryError: MLflow does not answer at the start (before anything was spent), or refuses a record.

    Example:
        >>> with open_run("support-desk", "sft", {"stage": "sft"}) as run:
        ...     run.log_params({"learning_rate": 1e-3})
        ...     run.log_metrics({"loss": 2.1}, step=1)
    """
    client = connect()
    with registry_errors(f"MLflow experiment {experiment!r}"):
        if run_id is None:
            created = client.create_run(experiment_id(client, experiment), run_name=run_name, tags=dict(tags))
            run_id = str(created.info.run_id)
        else:
            client.update_run(run_id, status="RUNNING")
    run = TrackingRun(client, run_id)
    status = "FAILED"
    try:
        if tags:
            run.set_tags(tags)
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, RunStopped):
        status = "KILLED"
        raise
    finally:
        run._close(status)


def run_page(run_id: str) -> str | None:
    """The address of a run's page on the tracking server, or None where no server shows one (a bare database)."""
    uri = tracking_uri()
    if not uri.startswith(("http://", "https://")):
        return None
    with registry_errors(f"MLflow run {run_id}"):
        experiment = connect().get_run(run_id).info.experiment_id
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"


def experiment_id(client: Any, name: str) -> str:
    """The id of the experiment called ``name``, created when absent (also when two processes do so at once)."""
    from mlflow.exceptions import MlflowException

    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        try:
            return str(client.create_experiment(name, artifact_location=_artifact_location()))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id)


def _artifact_location() -> str | None:
    """Where a new experiment keeps artifacts: beside a SQLite file; elsewhere where the server says (None)."""
    root = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT")
    uri = tracking_uri()
    if root is None and uri.startswith("sqlite:///"):
        root = (Path(uri.removeprefix("sqlite:///")).resolve().parent / "mlflow-artifacts").as_uri()
    return root


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:200]
