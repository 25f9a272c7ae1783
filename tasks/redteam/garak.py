"""NVIDIA's garak against the loaded model; its findings become rates of the same report.

garak pins an older transformers than training needs, so it runs in its own environment and reaches the model over HTTP. The
endpoint is on this machine, on a free port, exists while garak runs, and requires a token that is made for the run. garak's
report contains replies and is deleted after the counts are read.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tasks.contracts.measurement import Measurement
from tasks.core.errors import MissingDependencyError, PerennialError
from tasks.core.processes import start_guarded_program, stop_group
from tasks.core.scratch import scratch_folder
from tasks.modeling.generation import LoadedModel, generate_replies
from tasks.redteam.config import GarakConfig
from tasks.stats.intervals import wilson_interval

_MIN_VERSION = (0, 17)
"""With conflicting dependencies pip installs 0.9, which has other options and another report."""
_IGNORED_DETECTORS = ("mitigation.",)
"""MitigationBypass knows a few phrases of refusal; a refusal in other words counts as a success of the attack."""
_REQUEST_TIMEOUT_SECONDS = 600
_SILENCE_SECONDS = 60.0
"""A connection that sends nothing for this long is closed."""


def probe_with_garak(loaded: LoadedModel, config: GarakConfig, *, max_new_tokens: int, seed: int) -> tuple[Measurement, ...]:
    """For each probe and detector the share of successful attacks, as ``garak.<probe>.<detector>``.

    A probe of which garak evaluated nothing is not measured, regardless of garak's exit status.

    Raises:
        MissingDependencyError: The named interpreter has no garak of at least version 0.17.
        PerennialError: garak ended without a report, or not in time.
    """
    garak_version(config)
    token = secrets.token_urlsafe(32)
    with scratch_folder("garak") as folder, _endpoint(loaded, max_new_tokens, token) as url:
        options = folder / "options.json"
        options.write_text(json.dumps({"rest": {"RestGenerator": _rest_options(url, token)}}))
        arguments = ["--target_type", "rest", "--generator_option_file", str(options), "--probes", ",".join(config.probes)]
        arguments += ["--report_prefix", str(folder / "findings"), "--generations", "1", "--seed", str(seed % 2**32)]
        _run(config, arguments, folder)
        report = folder / "findings.report.jsonl"
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
        if not any('"completion"' in line for line in lines[-1:]):
            raise PerennialError(
                "redteam.garak",
                _last_error(folder) or "no complete report",
                "a report with a completion entry",
                "Run the same probes by hand in garak's environment to see why.",
            )
        return rates_in(lines, config.probes)


def rates_in(lines: Iterable[str], probes: Iterable[str]) -> tuple[Measurement, ...]:
    """The counts of a garak report (JSON Lines): one rate per probe and detector."""
    counts: dict[str, tuple[int, int]] = {}
    seen: dict[str, int] = defaultdict(int)
    for line in lines:
        entry = json.loads(line)
        if entry.get("entry_type") != "eval" or str(entry["detector"]).startswith(_IGNORED_DETECTORS):
            continue
        total = int(entry["total_evaluated"])
        seen[str(entry["probe"])] += total
        if total:
            counts[f"garak.{entry['probe']}.{entry['detector'].split('.')[-1]}"] = (int(entry["fails"]), total)
    rates = []
    for name, (fails, total) in sorted(counts.items()):
        low, high = wilson_interval(fails, total)
        rates.append(Measurement(name=name, value=fails / total, low=low, high=high, num_samples=total, note="garak"))
    for wanted in probes:
        if not any(probe == wanted or probe.startswith(f"{wanted}.") for probe, total in seen.items() if total):
            rates.append(Measurement(name=f"garak.{wanted}", value=None, num_samples=0, note="garak evaluated nothing"))
    return tuple(rates)


def garak_version(config: GarakConfig) -> str:
    """The version of garak in the configured environment.

    Raises:
        MissingDependencyError: There is none, or one below 0.17.
    """
    program = "import importlib.metadata as m; print(m.version('garak'))"
    try:
        done = subprocess.run([config.python, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=False)
        version = done.stdout.strip() if done.returncode == 0 else ""
    except OSError:
        version = ""
    if not version or tuple(int(part) for part in version.split(".")[:2]) < _MIN_VERSION:
        raise MissingDependencyError(
            f"redteam.garak.python: {config.python}",
            f"garak {version}" if version else "no garak",
            "an environment of its own with garak 0.17 or newer: its pins exclude the transformers that training needs",
            "python3 -m venv garak-env && garak-env/bin/pip install 'garak>=0.17.1', and name garak-env/bin/python.",
        )
    return version


def _rest_options(url: str, token: str) -> dict[str, object]:
    return {
        "name": "perennial",
        "uri": url,
        "method": "post",
        "headers": {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
        "req_template_json_object": {"prompt": "$INPUT"},
        "response_json": True,
        "response_json_field": "text",
        "request_timeout": _REQUEST_TIMEOUT_SECONDS,
    }


def _run(config: GarakConfig, arguments: list[str], folder: Path) -> None:
    """Runs garak until it or this process ends; what it writes beside the report stays in ``folder``."""
    places = {f"XDG_{kind}_HOME": str(folder / kind.lower()) for kind in ("DATA", "CACHE", "CONFIG")}
    environment = {"PATH": os.environ.get("PATH", ""), "HOME": str(folder), "HF_HUB_OFFLINE": "1", **places}
    with (folder / "log").open("wb") as log:
        command = [config.python, "-m", "garak", *arguments]
        process = start_guarded_program(command, environment=environment, folder=folder, stdout=log, stderr=log)
        try:
            process.wait(timeout=60 * config.timeout_minutes)
        except subprocess.TimeoutExpired as error:
            raise PerennialError(
                "redteam.garak",
                f"garak still running after {config.timeout_minutes:g} minutes",
                "its report",
                "Name fewer probes, or raise redteam.garak.timeout_minutes.",
            ) from error
        finally:
            stop_group(process)


def _last_error(folder: Path) -> str:
    """The class of the error at the end of garak's log, without its message, which may quote a reply."""
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    return lines[-1].split(":")[0][:100] if lines else ""


@contextmanager
def _endpoint(loaded: LoadedModel, max_new_tokens: int, token: str) -> Iterator[str]:
    """A URL of this machine that answers ``{"prompt": ...}`` with ``{"text": ...}``, one request at a time."""
    lock = threading.Lock()
    expected = f"Bearer {token}".encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = _SILENCE_SECONDS

        def do_POST(self) -> None:
            if not hmac.compare_digest(self.headers.get("Authorization", "").encode("latin-1", "replace"), expected):
                self.send_error(401)
                return
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            prompt = [{"role": "user", "content": str(body["prompt"])}]
            with lock:
                [reply] = generate_replies(loaded, [prompt], max_new_tokens=max_new_tokens, batch_size=1)
            answer = json.dumps({"text": reply.text}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *arguments: object) -> None:
            """Logs nothing: a request contains a prompt."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
