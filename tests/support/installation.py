"""A whole installation of Perennial on loopback: PostgreSQL, Prefect, MLflow, workers, alert bridge, each a real process.

Everything lies in one folder and dies with the process that started it. Servers can be killed and started again under the
same address, which is what `benchmarks/failure_matrix.py` does; the end-to-end test and the screenshots use it as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from perennial.operations.embedded import free_port, wait_until_healthy
from tasks.core.processes import start_guarded, stop_group
from tests.support.postgres import running_postgres
from tests.support.tiny_model import build_tiny_model

ROOT = Path(__file__).parents[2]
TOKEN = "the-token-of-the-tests"
POOLS = ("perennial-cpu", "perennial-gpu")
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
START_TIMEOUT_SECONDS = 240.0


class Installation:
    """The servers and workers of one folder; made by :func:`installation`.

    Attributes:
        folder: Where everything lies.
        environment: What each process is started with.
        api: Prefect's API.
        mlflow: MLflow's address.
        bridge: The alert bridge's address.
    """

    def __init__(self, folder: Path, postgres: str) -> None:
        self.folder = folder
        ports = free_port(), free_port(), free_port()
        self.api, self.mlflow, self.bridge = (f"http://127.0.0.1:{port}" for port in ports)
        self.api += "/api"
        self._ports = dict(zip(("prefect", "mlflow", "bridge"), ports, strict=True))
        self._postgres = postgres
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "PERENNIAL_"))
        }
        self.environment = {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "PERENNIAL_HOME": str(folder / "home"),
            "PERENNIAL_ALERT_TOKEN": TOKEN,
            "PREFECT_HOME": str(folder / "home" / "prefect"),
            "PREFECT_LOCAL_STORAGE_PATH": str(folder / "home" / "results"),
            "PREFECT_API_URL": self.api,
            "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,flows",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{postgres}/prefect",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5",
            "PREFECT_SERVER_UI_API_URL": self.api,
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "MLFLOW_TRACKING_URI": self.mlflow,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "DO_NOT_TRACK": "1",
        }
        (folder / "home" / "logs").mkdir(parents=True)

    # -- processes

    def start(self, *names: str) -> None:
        """Starts servers and workers (``prefect``, ``mlflow``, ``bridge``, a pool's name) and waits until they answer."""
        for name in names:
            module, arguments = self._command(name)
            with (self.folder / "home" / "logs" / f"{name}.log").open("ab") as log:
                self._running[name] = start_guarded(
                    module,
                    arguments,
                    environment=self.environment,
                    with_children=module == "mlflow",
                    stdout=log,
                    stderr=log,
                )
        pages = {"prefect": f"{self.api}/health", "mlflow": f"{self.mlflow}/health", "bridge": f"{self.bridge}/healthz"}
        for name in names:
            if name in pages:
                wait_until_healthy(pages[name], self._running[name], START_TIMEOUT_SECONDS)

    def kill(self, name: str) -> None:
        """Ends a process and all its children at once, as a machine that goes away does (``kill -9``)."""
        process = self._running.pop(name)
        for pid in [*_descendants(process.pid), process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """Ends every process; workers before the servers that they would wait for."""
        for name in sorted(self._running, key=lambda one: one not in POOLS):
            stop_group(self._running.pop(name), grace_seconds=5)

    def pid_of(self, name: str) -> int:
        """The process number of a server or worker."""
        return self._running[name].pid

    def _command(self, name: str) -> tuple[str, list[str]]:
        host = ["--host", "127.0.0.1"]
        if name in POOLS:
            return "prefect", ["worker", "start", "--pool", name, "--type", "process"]
        port = ["--port", str(self._ports[name])]
        if name == "prefect":
            app = ["--factory", "prefect.server.api.server:create_app"]
            return "uvicorn", [*app, *host, *port, "--log-level", "warning", "--timeout-keep-alive", "10"]
        if name == "mlflow":
            backend = ["--backend-store-uri", f"postgresql+psycopg2://{self._postgres}/mlflow"]
            artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
            return "mlflow", ["server", *backend, *artifacts, *host, *port, "--workers", "1"]
        settings = {
            "deployments": {"desk": "retrain-on-alert/retrain-on-alert"},
            "queue": str(self.folder / "alerts.db"),
            "max_retry_seconds": 2,
        }
        (self.folder / "bridge.yaml").write_text(yaml.safe_dump(settings))
        return "perennial", ["alert-bridge", "--config", str(self.folder / "bridge.yaml"), *host, *port]

    def perennial(self, *arguments: str, check: bool = True) -> str:
        """What the command printed."""
        done = subprocess.run(
            [sys.executable, "-m", "perennial", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        if check and done.returncode:
            raise RuntimeError(f"perennial {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def sql(self, database: str, statement: str) -> None:
        """Runs a statement in one of the databases."""
        import psycopg2

        connection = psycopg2.connect(f"postgresql://{self._postgres}/{database}")
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
        finally:
            connection.close()

    # -- what is deployed

    def deployments(self, config: Mapping[str, Any], **more: Any) -> Path:
        """The repository's deployments, with this configuration in place of the one written there.

        Args:
            config: Of every retrain.
            more: Other parameters to replace, such as ``policy``.
        """
        document = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
        for one in document["deployments"]:
            parameters = one.get("parameters", {})
            for key, value in {"config": dict(config), **more}.items():
                if key in parameters:
                    parameters[key] = value
        path = self.folder / "prefect.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    # -- Prefect's API

    def ask(self, path: str, body: Any = None, *, method: str | None = None) -> Any:
        """The JSON answer to a GET, or a POST where there is a body."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.api}/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Flow runs, oldest first, by Prefect's filters (``flows``, ``flow_runs``, ``deployments``)."""
        found: list[dict[str, Any]] = self.ask("flow_runs/filter", filters)
        return sorted(found, key=lambda run: str(run["created"]))

    def start_run(self, deployment: str, **parameters: Any) -> str:
        """The id of a new run of ``flow/deployment``."""
        found = self.ask(f"deployments/name/{deployment}")
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", {"parameters": parameters})["id"])

    def await_run(self, run_id: str, *states: str, seconds: float = 600.0) -> dict[str, Any]:
        """The run, once its state's type is among ``states`` (default: any final one); a server that is away is waited for.

        Raises:
            TimeoutError: It is not, in time; the message names the state.
            HTTPError: There is no such run.
        """
        wanted, state = states or FINAL, ""

        def reached() -> dict[str, Any] | None:
            nonlocal state
            try:
                run: dict[str, Any] = self.ask(f"flow_runs/{run_id}")
            except urllib.error.HTTPError as error:
                if error.code == HTTPStatus.NOT_FOUND:
                    raise
                return None
            except OSError:
                return None
            state = str(run["state_type"])
            return run if state in wanted else None

        try:
            return await_value(reached, seconds=seconds)
        except TimeoutError as error:
            raise TimeoutError(f"run {run_id} is {state}, not {' or '.join(wanted)}, after {seconds:.0f} s") from error

    def log_of(self, run_id: str) -> list[str]:
        """The messages of a run's log, oldest first."""
        query = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return [str(line["message"]) for line in self.ask("logs/filter", query)]


def await_value(ask: Callable[[], Any], *, seconds: float) -> Any:
    """What ``ask`` returns as soon as that is true.

    Raises:
        TimeoutError: It did not become true in time.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := ask():
            return value
        time.sleep(0.25)
    raise TimeoutError(f"waited for {seconds:.0f} s in vain")


@contextmanager
def installation(folder: Path, *names: str) -> Iterator[Installation]:
    """A PostgreSQL with an :class:`Installation` whose named servers run; all of it is gone afterwards."""
    with ExitStack() as stack:
        place = Installation(folder, stack.enter_context(running_postgres("prefect", "mlflow")))
        stack.callback(place.stop)
        place.start(*names)
        yield place


# ------------------------------------------------------------------------------------------------------- the smallest job

WINDOW_END = datetime(2026, 11, 3, 6, tzinfo=UTC)
"""End of the alerted window of :func:`small_job`."""


def small_job(folder: Path, *, num_rows: int = 60, seed: int = 7) -> dict[str, Any]:
    """A configuration of the whole job that takes a minute: made-up tickets, one an hour, and a tiny model.

    The last five rows were made after ``WINDOW_END``.

    Args:
        folder: Receives ``tickets.jsonl`` and ``model``.
        num_rows: Rows of the source.
        seed: Another one makes other rows, on which nothing was done before.
    """
    if not (folder / "model").exists():
        build_tiny_model(folder / "model", steps=20)
    generator = ROOT / "examples" / "support_desk" / "generate.py"
    arguments = ["--rows", str(num_rows), "--pairs", "2", "--seed", str(seed)]
    made = folder / f"made-{seed}"
    subprocess.run([sys.executable, str(generator), "--out", str(made), *arguments], check=True, stdout=subprocess.DEVNULL)
    rows = list(_readable((made / "tickets.jsonl").read_text()))
    first = WINDOW_END - timedelta(hours=len(rows) - 5)
    with (made / "dated.jsonl").open("w") as file:
        for number, row in enumerate(rows):
            row["created_at"] = (first + timedelta(hours=number)).isoformat()
            file.write(json.dumps(row) + "\n")
    return {
        "name": "desk",
        "store": str(folder / "store"),
        "examples": {
            "path": str(made / "dated.jsonl"),
            "format": "tickets",
            "columns": {"body": "instruction", "reply": "response"},
            "known_value_columns": ["customer_name", "account_id"],
        },
        "prepare": {
            "pii": {"mode": "turbo"},
            "labels": {"embedding_model": "tfidf", "max_removed_share": 1.0},
            "splitting": {"test_share": 0.3, "max_validation_rows": 4},
        },
        "training": {
            "base_model": {"source": str(folder / "model"), "license": "apache-2.0"},
            "sft": {"max_steps": 3, "max_length": 256, "max_truncated_share": 1.0, "evals_per_epoch": 1},
        },
        "benchmark": {"max_new_tokens": 4, "max_examples": 12, "retention": False},
        "redteam": {"enabled": False},
        "promotion": {"min_examples": 10, "max_retention_loss": None, "num_resamples": 1000},
    }


def _readable(text: str) -> Iterator[dict[str, Any]]:
    """The rows of JSON lines; the generator plants broken ones, which have no time."""
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _descendants(pid: int) -> list[int]:
    """Children, children's children and so on, youngest last."""
    try:
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return [*children, *(below for child in children for below in _descendants(child))]
