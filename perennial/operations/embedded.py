"""The embedded default: without configuration, Prefect's server and MLflow run on SQLite files in one folder.

All state is kept under ``.perennial/`` in the current folder (or ``PERENNIAL_HOME``): Prefect's database and results,
MLflow's database and artifacts, the store, the servers' logs. A run starts its own server, or uses the one that
``perennial server`` started; with ``PREFECT_API_URL`` set, neither applies. ``prepare_environment`` must be called before
Prefect is imported, because Prefect reads its settings on import.

The servers require the folder's credential (:mod:`perennial.operations.credential`), which is passed in the environment;
clients send it only to a server that has proven to know it.
"""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import os
import secrets
import signal
import socket
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from urllib.parse import urlsplit

from perennial.operations.credential import read_credential
from perennial.operations.loopback import CREDENTIAL_VARIABLE, NONCE_HEADER, PROOF_PATH, proof_of
from tasks import TELEMETRY_OFF
from tasks.core.errors import ConfigError, PerennialError, StoreError
from tasks.core.processes import start_guarded, stop_group
from tasks.core.scratch import sweep_scratch
from tasks.tracking.database import open_database

_CODE = Path(__file__).parents[2]
START_TIMEOUT_SECONDS = 120.0
"""The first start runs the database migrations: 13 s on two cores, several times that under load."""


def home() -> Path:
    """The folder of the embedded state."""
    return Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute()


def prepare_environment() -> None:
    """Points Prefect, MLflow and the model libraries at the embedded folder, and turns off telemetry.

    Variables that the user has set are kept.

    Raises:
        ConfigError: ``PREFECT_API_URL`` is no address of a server; Prefect itself would fail on import.
        StoreError: The folder cannot be created or written.
    """
    _check_api_url(os.environ.get("PREFECT_API_URL"))
    folder = home()
    try:
        (folder / "mlflow").mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StoreError(
            str(folder),
            f"a folder that cannot be written ({error.strerror})",
            "a writable folder for the embedded state",
            "Run from another folder, or set PERENNIAL_HOME.",
        ) from error
    sweep_scratch()
    defaults = {
        **TELEMETRY_OFF,
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(folder / "results"),
        # With Prefect's default, memory, a restarted server loses its leases: slots and locks stay taken, and runs whose
        # deployment has a limit crash at the next renewal of their lease (benchmarks/failure_matrix.py).
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "tasks,flows",
        # The terminal shows a line per stage and one explained error; the logs, with tracebacks, are in Prefect's UI.
        # INFO shows them in the terminal too.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "PREFECT_CLI_COLORS": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def _check_api_url(url: str | None) -> None:
    try:
        parts = urlsplit(url or "http://localhost")
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        expected = "the address of a server's API, such as http://localhost:4200/api"
        raise ConfigError("environment variable PREFECT_API_URL", "no such address", expected, "Correct it, or unset it.")


@contextmanager
def prefect_api(say: Callable[[str], None]) -> Iterator[str]:
    """The URL of the Prefect API: the configured one, the one ``perennial server`` runs, or one started for the block.

    Args:
        say: Called with one line that says what the run waits for.

    Raises:
        PerennialError: The server did not start in time; the error names its log.
    """
    use_running_server()
    if running := os.environ.get("PREFECT_API_URL"):
        yield running
        return
    port = free_port()
    server = start_prefect_server(port, ui=False)
    url = f"http://127.0.0.1:{port}/api"
    before = None
    try:
        say("Starting Prefect's server (10 to 30 s the first time)")
        wait_until_healthy(f"{url}/health", server, is_expected=is_ours)
        before = _set_api({"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": read_credential(home())})
        yield url
    finally:
        _flush_logs()
        if before is not None:
            _set_api(before)
        stop_group(server)


def use_running_server() -> None:
    """Points Prefect at the server of ``perennial server`` over this folder, if any, unless another is configured.

    If ``PREFECT_API_URL`` names that server, the credential may be omitted.
    """
    configured = os.environ.get("PREFECT_API_URL")
    if configured and (os.environ.get("PREFECT_API_AUTH_STRING") or configured != _noted_server()):
        return
    if url := running_server():
        _set_api({"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": read_credential(home())})


def _set_api(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    """Sets or removes variables in the environment and in Prefect's loaded settings; returns their former values."""
    from prefect.context import refresh_global_settings_context

    before = {name: os.environ.get(name) for name in variables}
    for name, value in variables.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    refresh_global_settings_context()
    return before


def _flush_logs() -> None:
    """Sends the log lines that Prefect still buffers, before their server stops."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


def start_prefect_server(port: int, *, ui: bool) -> Popen[bytes]:
    """Starts Prefect's server as a guarded child; its log is ``prefect-server.log`` in the embedded folder."""
    url, credential = f"http://127.0.0.1:{port}", read_credential(home())
    settings = {
        "PREFECT_UI_ENABLED": "1" if ui else "0",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(port),
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_SERVER_API_AUTH_STRING": credential,
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url,
    }
    return _serve("prefect", port, credential, settings)


def start_mlflow_server(port: int) -> Popen[bytes]:
    """Starts MLflow's server over the embedded database as a guarded child; its log is ``mlflow-server.log``."""
    folder = home() / "mlflow"
    settings = {
        "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_ARTIFACTS_DESTINATION": str(folder / "artifacts"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},localhost:{port}",
        "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port},http://localhost:{port}",
    }
    open_database(settings["MLFLOW_BACKEND_STORE_URI"])
    return _serve("mlflow", port, read_credential(home()), settings)


def _serve(name: str, port: int, credential: str, settings: Mapping[str, str]) -> Popen[bytes]:
    """Starts an application of :mod:`perennial.operations.loopback` as a guarded child, on the loopback interface only."""
    environment = {**os.environ, **settings, CREDENTIAL_VARIABLE: credential}
    environment.pop("PREFECT_API_URL", None)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(_CODE), environment.get("PYTHONPATH"))))
    arguments = ["--factory", f"perennial.operations.loopback:{name}_app", "--host", "127.0.0.1", "--port", str(port)]
    arguments += ["--log-level", "warning", "--timeout-keep-alive", "10", "--no-server-header"]
    with log_path(f"{name}-server").open("ab") as log:
        return start_guarded("uvicorn", arguments, environment=environment, stdout=log, stderr=log)


def running_server() -> str | None:
    """The API URL of the running ``perennial server`` over this folder, or None."""
    url = _noted_server()
    return url if url and is_healthy(f"{url}/health") and is_ours(url) else None


def _noted_server() -> str | None:
    """The API URL that ``perennial server`` recorded; the server may have stopped, and its port may be reused."""
    try:
        return str(json.loads((home() / "server.json").read_text())["prefect_api_url"])
    except (FileNotFoundError, ValueError, KeyError):
        return None


def is_ours(url: str) -> bool:
    """Whether the server at ``url`` proves that it knows this folder's credential, which is not sent to it."""
    address, nonce = urllib.parse.urlsplit(url), secrets.token_hex(16)
    request = urllib.request.Request(f"http://{address.netloc}{PROOF_PATH}", headers={NONCE_HEADER: nonce})
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            proof = response.read(1_000)
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return hmac.compare_digest(proof, proof_of(read_credential(home()), address.port or 80, nonce).encode())


def wait_until_healthy(
    url: str,
    process: Popen[bytes],
    timeout_seconds: float = START_TIMEOUT_SECONDS,
    *,
    is_expected: Callable[[str], bool] = lambda url: True,
) -> None:
    """Waits until ``url`` answers 200.

    Args:
        url: The health endpoint of the server.
        process: The server.
        timeout_seconds: How long to wait.
        is_expected: Whether ``url`` belongs to that server, and not to another program that took its port.

    Raises:
        PerennialError: The process ended, or did not respond in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if is_healthy(url) and is_expected(url):
            return
        if process.poll() is not None:
            raise PerennialError(
                url,
                f"a server that ended with code {process.returncode}",
                "a running server",
                f"Read {home()}/*-server.log.",
            )
        time.sleep(0.25)
    raise PerennialError(
        url,
        f"no response within {timeout_seconds:.0f} s",
        "a healthy server",
        f"Read {home()}/*-server.log, then run again.",
    )


def is_healthy(url: str) -> bool:
    """Whether ``url`` answers 200 within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


_PORTS = range(20_000, 32_768)
"""Below the range from which systems give ports to connections and to whoever binds port 0: 32768 on Linux, 49152 elsewhere.
A port of that range may be gone before a server on a busy machine has started."""


def free_port() -> int:
    """A currently free TCP port on the loopback interface, drawn from :data:`_PORTS`.

    Raises:
        PerennialError: No port of a hundred is free.
    """
    for _ in range(100):
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    expected = f"one of {_PORTS.start} to {_PORTS.stop - 1}"
    raise PerennialError("127.0.0.1", "no free port", expected, "See which programs listen there, then run again.")


def log_path(name: str) -> Path:
    """The log file of an embedded server."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.log"


@contextmanager
def servers(port: int, mlflow_port: int, say: Callable[[str], None]) -> Iterator[tuple[str, str]]:
    """Runs the servers of Prefect and MLflow over the embedded state; runs started in this folder use them.

    Raises:
        PerennialError: A port is in use, or a server did not start.
    """
    for name, number in (("Prefect", port), ("MLflow", mlflow_port)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", number))
            except OSError as error:
                raise PerennialError(
                    f"port {number}",
                    "another program",
                    f"a free port for {name}",
                    "Stop it, or choose with --port/--mlflow-port.",
                ) from error
    note = home() / "server.json"
    prefect, mlflow = start_prefect_server(port, ui=True), start_mlflow_server(mlflow_port)
    try:
        say("Starting the servers (up to a minute)")
        wait_until_healthy(f"http://127.0.0.1:{port}/api/health", prefect, is_expected=is_ours)
        wait_until_healthy(f"http://127.0.0.1:{mlflow_port}/health", mlflow, is_expected=is_ours)
        note.write_text(json.dumps({"prefect_api_url": f"http://127.0.0.1:{port}/api"}))
        yield f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mlflow_port}"
    finally:
        note.unlink(missing_ok=True)
        stop_group(prefect)
        stop_group(mlflow)


def wait_for_interrupt() -> None:
    """Sleeps until Ctrl-C or SIGTERM; a background job ignores Ctrl-C, but not SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            time.sleep(3600)
