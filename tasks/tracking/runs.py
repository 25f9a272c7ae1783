"""Tracking of a run in MLflow: parameters, metrics, artifacts, data sets. Training and the dossier use it.

Records of an outage are kept on disk and delivered later, by this run or by the next one on this machine, so that neither a
restart nor an outage of the server affects a training.
"""

from __future__ import annotations

import base64
import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.contracts.references import DatasetRef
from tasks.core.addresses import first_line, without_secrets
from tasks.core.scratch import scratch_folder
from tasks.tracking.client import connect, experiment_id, registry_errors, tracking_uri
from tasks.tracking.outbox import Outbox, Record, claimed, kept_files

logger = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 30.0
_OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")
"""Error codes of a server or database that does not respond; any other code is a rejection."""


class RunStopped(Exception):
    """Raised inside :func:`open_run` to stop the run early; the run ends as KILLED."""


class TrackingRun:
    """One open MLflow run; created by :func:`open_run`.

    In an outage, calls return at once after the first failure, and their records are delivered in order when MLflow responds
    again. They are also on disk (:func:`unsent_folder`): if the run ends or is killed first, the next one sends them.

    Attributes:
        run_id: MLflow's id; pass it to :func:`open_run` to continue the run after a crash.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self._client = client
        self._waiting: deque[Record] = deque()
        self._outbox = Outbox(unsent_folder(), run_id, {"tracking_uri": without_secrets(tracking_uri()), "run_id": run_id})
        self._num_kept = 0
        self._retry_at = 0.0

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Logs settings. MLflow keeps the first value of a setting; a warning names settings with another value."""
        self._send({"kind": "params", "values": {name: str(value) for name, value in params.items()}})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Logs figures of one step, dated now."""
        values = {name: float(value) for name, value in metrics.items()}
        self._send({"kind": "metrics", "values": values, "at": _now_milliseconds(), "step": step})

    def log_artifact_bytes(self, name: str, data: bytes) -> None:
        """Stores ``data`` as the run's artifact ``name``, which may have folders in it (``plots/loss.png``)."""
        self._send({"kind": "artifact", "name": name, "data": base64.b64encode(data).decode()})

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets or replaces tags."""
        self._send({"kind": "tags", "values": {name: str(value) for name, value in tags.items()}})

    def log_dataset(self, ref: DatasetRef, context: str) -> None:
        """Records a data set as an input of the run: its hash, size and lineage, not its rows.

        Args:
            ref: The data set.
            context: Its use: ``training``, ``validation``, ``benchmark``.
        """
        self._send({"kind": "dataset", "ref": ref.model_dump(mode="json"), "context": context})

    def _send(self, record: Record) -> None:
        self._waiting.append(record)
        if time.monotonic() >= self._retry_at:
            self._deliver_waiting()
        else:
            self._keep_waiting()

    def _deliver_waiting(self) -> None:
        from mlflow.exceptions import MlflowException

        with registry_errors(f"MLflow run {self.run_id}"):
            while self._waiting:
                try:
                    _deliver(self._client, self.run_id, self._waiting[0])
                except MlflowException as error:
                    if error.error_code not in _OUTAGES:
                        self._drop_first()
                        raise
                    self._retry_at = time.monotonic() + _RETRY_AFTER_SECONDS
                    logger.warning(
                        "MLflow does not respond; %d records of run %s wait: %s",
                        len(self._waiting),
                        self.run_id,
                        first_line(error),
                    )
                    self._keep_waiting()
                    return
                self._drop_first()
        self._outbox.discard()
        self._num_kept = 0

    def _drop_first(self) -> None:
        """Drops a delivered record; its copy on disk may be sent again, which changes nothing in MLflow."""
        self._waiting.popleft()
        self._num_kept = max(0, self._num_kept - 1)

    def _keep_waiting(self) -> None:
        """Writes the waiting records that are not on disk yet."""
        waiting = list(self._waiting)
        self._outbox.keep(waiting[self._num_kept :])
        self._num_kept = len(waiting)

    def close(self, status: str) -> None:
        """Ends the run with MLflow's ``status``; undelivered records stay on disk."""
        self._waiting.append({"kind": "end", "status": status, "at": _now_milliseconds()})
        try:
            self._deliver_waiting()
        finally:
            self._outbox.leave()
        if self._waiting:
            logger.error(
                "MLflow does not respond: run %s shows as running and lacks its last %d records, which are kept in %s and "
                "sent with the next run on this machine; results are not affected",
                self.run_id,
                len(self._waiting),
                self._outbox.path,
            )


def unsent_folder() -> Path:
    """The folder of undelivered records: ``mlflow-unsent`` in the embedded folder."""
    return Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute() / "mlflow-unsent"


def send_kept(client: Any) -> int:
    """Sends undelivered records of earlier runs on this machine; returns the number of delivered files.

    It stops at an outage and keeps the rest. A record that MLflow rejects (its run was deleted) is dropped with a warning.
    """
    from mlflow.exceptions import MlflowException

    num_sent = 0
    for path in kept_files(unsent_folder()):
        with claimed(path) as found:
            if found is None or found[0].get("tracking_uri") != without_secrets(tracking_uri()):
                continue
            run_id = str(found[0]["run_id"])
            for record in found[1]:
                try:
                    _deliver(client, run_id, record)
                except MlflowException as error:
                    if error.error_code in _OUTAGES:
                        return num_sent
                    logger.warning("MLflow rejects a kept record of run %s: %s", run_id, first_line(error))
            path.unlink(missing_ok=True)
            num_sent += 1
            logger.info("MLflow run %s: delivered its last %d records", run_id, len(found[1]))
    return num_sent


def _deliver(client: Any, run_id: str, record: Record) -> None:
    """Adds one record to a run; a repeated call changes nothing."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag

    match record["kind"]:
        case "params":
            logged = client.get_run(run_id).data.params
            params = record["values"]
            changed = sorted(name for name, value in params.items() if logged.get(name, value) != value)
            if changed:
                logger.warning("MLflow run %s keeps its first values of %s", run_id, ", ".join(changed))
            new = [Param(name, value) for name, value in params.items() if name not in logged]
            if new:
                client.log_batch(run_id, params=new)
        case "metrics":
            values = record["values"].items()
            client.log_batch(run_id, metrics=[Metric(name, value, record["at"], record["step"]) for name, value in values])
        case "tags":
            client.log_batch(run_id, tags=[RunTag(name, value) for name, value in record["values"].items()])
        case "artifact":
            path = PurePosixPath(record["name"])
            parent = str(path.parent) if path.parent != PurePosixPath(".") else None
            with scratch_folder("artifact") as folder:
                (folder / path.name).write_bytes(base64.b64decode(record["data"]))
                client.log_artifact(run_id, str(folder / path.name), parent)
        case "dataset":
            ref = DatasetRef.model_validate(record["ref"])
            dataset = Dataset(
                name=f"{ref.kind}-{ref.sha256[:12]}",
                digest=ref.sha256[:36],  # MLflow's column holds 36 characters
                source_type="perennial",
                source=ref.model_dump_json(),
                profile=f'{{"num_rows": {ref.num_rows}}}',
            )
            tag = InputTag("mlflow.data.context", record["context"])
            client.log_inputs(run_id, [DatasetInput(dataset, [tag])])
        case "end":
            client.set_terminated(run_id, record["status"], record["at"])


def _now_milliseconds() -> int:
    return int(time.time() * 1000)


@contextmanager
def open_run(
    experiment: str, run_name: str, tags: Mapping[str, str], run_id: str | None = None, *, watch_machine: bool = False
) -> Iterator[TrackingRun]:
    """Opens an MLflow run, new or continued, and closes it as FINISHED, FAILED or KILLED.

    Args:
        experiment: Experiment name; created when absent.
        run_name: Shown in MLflow's lists.
        tags: Set at the start; never a record's text.
        run_id: Continues this run instead of creating one.
        watch_machine: Whether MLflow's own monitor logs CPU, memory, disk, network, and GPU where `nvidia-ml-py` is
            installed, as ``system/...``, every 10 s, until the run ends or MLflow does not respond. Off if
            ``MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING`` is false.

    Raises:
        ConfigError: No usable ``MLFLOW_TRACKING_URI``.
        RegistryError: MLflow does not respond at the start, before any work, or rejects a record.

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
            send_kept(client)
        else:
            send_kept(client)
            client.update_run(run_id, status="RUNNING")
    run = TrackingRun(client, run_id)
    status = "FAILED"
    monitor = _start_monitor(run_id) if watch_machine else None
    try:
        if tags:
            run.set_tags(tags)
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit, RunStopped):
        status = "KILLED"
        raise
    finally:
        if monitor is not None:
            monitor.finish()
        run.close(status)


def _start_monitor(run_id: str) -> Any:
    """Starts MLflow's monitor of this machine; None if the environment turns it off."""
    from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    monitor = SystemMetricsMonitor(run_id, resume_logging=True, tracking_uri=tracking_uri())
    monitor.start()
    return monitor


def run_page(run_id: str) -> str | None:
    """The address of a run's page on the tracking server, or None without a server (only a database)."""
    uri = without_secrets(tracking_uri())
    if not uri.startswith(("http://", "https://")):
        return None
    with registry_errors(f"MLflow run {run_id}"):
        experiment = connect().get_run(run_id).info.experiment_id
    return f"{uri.rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
