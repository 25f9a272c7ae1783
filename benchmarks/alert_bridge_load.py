"""A storm of alerts against a real bridge and a real Prefect server, both of which are killed on the way.

    python benchmarks/alert_bridge_load.py                       # 10,000 alerts from 50 connections, 100 distinct ones
    python benchmarks/alert_bridge_load.py --alerts 1000 --connections 10

Of the requests, 1 % are malformed and 1 % bear a wrong token. Prefect is killed (-9) after a quarter of them and restarted
some seconds later; the bridge is killed (-9) half-way and restarted at once, and senders repeat what was not answered, as
Alertmanager does. Every distinct alert must become exactly one run: `lost` and `doubled` must be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "the-token-of-the-load-test"
STARTS_AT = "2026-05-01T06:00:00Z"


@dataclass
class Tally:
    """What the senders saw, and what Prefect has in the end."""

    codes: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    answered: set[str] = field(default_factory=set)
    accepted: int = 0
    repeated: int = 0
    num_unanswered: int = 0
    runs: Counter[str] = field(default_factory=Counter)
    wall_seconds: float = 0.0
    delivered_after_seconds: float = 0.0

    @property
    def lost(self) -> int:
        """Distinct alerts that were answered with a yes and have no run."""
        return len(self.answered - set(self.runs))

    @property
    def doubled(self) -> int:
        """Runs beyond the first of each distinct alert."""
        return self.runs.total() - len(self.runs)

    @property
    def p95_seconds(self) -> float:
        """The 95th percentile of the time to an answer."""
        return sorted(self.seconds)[int(len(self.seconds) * 0.95)]


def plan_requests(num_alerts: int, num_distinct: int, seed: int = 0) -> list[tuple[str, bytes, str]]:
    """``(fingerprint or "", body, token)`` of every request; 1 % malformed, 1 % with a wrong token, in random order."""
    generator = random.Random(seed)
    requests = []
    for number in range(num_alerts):
        fingerprint = f"load-{number % num_distinct:05d}"
        alert = {"status": "firing", "labels": {"alertname": "Load"}, "startsAt": STARTS_AT, "fingerprint": fingerprint}
        body = json.dumps({"version": "4", "alerts": [alert]}).encode()
        if number % 100 == 98:
            requests.append(("", body[: len(body) // 2], TOKEN))
        elif number % 100 == 99:
            requests.append(("", body, "not-the-right-token"))
        else:
            requests.append((fingerprint, body, TOKEN))
    generator.shuffle(requests)
    return requests


async def send(
    url: str, requests: list[tuple[str, bytes, str]], num_connections: int, tally: Tally, at: dict[int, Callable[[], None]]
) -> None:
    """Sends the requests from so many connections; ``at`` holds what happens before the nth request."""
    waiting = iter(enumerate(requests))

    async def sender() -> None:
        async with httpx.AsyncClient(timeout=60.0) as client:
            for number, (fingerprint, body, token) in waiting:
                if number in at:
                    at[number]()
                headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
                response = await _until_answered(client, url, body, headers, tally)
                tally.codes[response.status_code] += 1
                if fingerprint and response.status_code in (200, 202):
                    tally.answered.add(fingerprint)
                    tally.accepted += response.json()["accepted"]
                    tally.repeated += response.json()["repeated"]

    await asyncio.gather(*(sender() for _ in range(num_connections)))


async def _until_answered(
    client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str], tally: Tally
) -> httpx.Response:
    while True:
        started = time.monotonic()
        try:
            response = await client.post(url, content=body, headers=headers)
        except httpx.TransportError:
            tally.num_unanswered += 1
            await asyncio.sleep(0.2)
            continue
        tally.seconds.append(time.monotonic() - started)
        return response


def measure(num_alerts: int, num_connections: int, num_distinct: int, outage_seconds: float, folder: Path) -> Tally:
    """Runs the whole storm in ``folder``; changes the process's environment."""
    for name in [name for name in os.environ if name.startswith(("PREFECT_", "MLFLOW_"))]:
        del os.environ[name]
    os.environ["PERENNIAL_HOME"] = str(folder / "home")
    from perennial.operations import embedded
    from perennial.operations.credential import read_credential

    embedded.prepare_environment()
    from tasks.core.processes import start_guarded, stop_group

    port, bridge_port = embedded.free_port(), embedded.free_port()
    api, bridge_url = f"http://127.0.0.1:{port}/api", f"http://127.0.0.1:{bridge_port}"
    settings = {
        "deployments": {"support-desk": "retrain-on-alert/retrain-on-alert"},
        "queue": str(folder / "alerts.db"),
        "max_requests_per_second": 100_000,
        "max_burst_requests": 100_000,
        "max_retry_seconds": 5,
    }
    (folder / "bridge.yaml").write_text(json.dumps(settings))
    credential = read_credential(embedded.home())
    served = {"PREFECT_API_URL": api, "PREFECT_API_AUTH_STRING": credential}
    environment = {**os.environ, **served, "PERENNIAL_ALERT_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    arguments = ["alert-bridge", "--config", str(folder / "bridge.yaml"), "--port", str(bridge_port)]

    def start_server() -> Popen[bytes]:
        return embedded.start_prefect_server(port, ui=False)

    def start_bridge() -> Popen[bytes]:
        with (folder / "bridge.log").open("ab") as log:
            return start_guarded("perennial", arguments, environment=environment, stdout=log, stderr=log)

    running: dict[str, Popen[bytes]] = {"prefect": start_server(), "bridge": start_bridge()}

    def kill(name: str) -> None:
        os.killpg(running[name].pid, signal.SIGKILL)
        running[name].wait()

    def kill_and_restart_bridge() -> None:
        kill("bridge")
        running["bridge"] = start_bridge()

    async def storm() -> Tally:
        tally = Tally()
        requests = plan_requests(num_alerts, num_distinct)
        outage: list[asyncio.Task[None]] = []

        async def end_outage() -> None:
            await asyncio.sleep(outage_seconds)
            running["prefect"] = start_server()  # in this thread: the child dies with the thread that started it

        def begin_outage() -> None:
            kill("prefect")
            outage.append(asyncio.ensure_future(end_outage()))

        started = time.monotonic()
        await send(
            f"{bridge_url}/alerts",
            requests,
            num_connections,
            tally,
            {num_alerts // 4: begin_outage, num_alerts // 2: kill_and_restart_bridge},
        )
        tally.wall_seconds = time.monotonic() - started
        await asyncio.gather(*outage)
        return tally

    try:
        embedded.wait_until_healthy(f"{api}/health", running["prefect"])
        embedded.wait_until_healthy(f"{bridge_url}/healthz", running["bridge"])
        with _prefect_at(api, credential):
            _deploy()
        tally = asyncio.run(storm())
        ended = time.monotonic()
        embedded.wait_until_healthy(f"{api}/health", running["prefect"])
        _wait_until_delivered(bridge_url)
        tally.delivered_after_seconds = time.monotonic() - ended
        with _prefect_at(api, credential):
            tally.runs.update(_fingerprints_of_runs())
        return tally
    finally:
        for process in running.values():
            stop_group(process)


def _wait_until_delivered(bridge_url: str, timeout_seconds: float = 600.0) -> None:
    deadline = time.monotonic() + timeout_seconds
    while httpx.get(f"{bridge_url}/healthz", timeout=30.0).json()["waiting"]:
        if time.monotonic() > deadline:
            sys.exit("alerts still wait after ten minutes")
        time.sleep(0.5)


def _prefect_at(api: str, credential: str) -> Any:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    return temporary_settings({PREFECT_API_URL: api, PREFECT_API_AUTH_STRING: credential})


def _deploy() -> None:
    """The real flow's deployment with its real parameter schema, and no worker: runs are made and wait."""
    from flows.on_alert import retrain_on_alert

    config = {"name": "support-desk", "examples": {"path": "tickets.jsonl"}}
    deployment = retrain_on_alert.to_deployment("retrain-on-alert", parameters={"config": config})
    deployment.apply()


def _fingerprints_of_runs() -> list[str]:
    from prefect.client.orchestration import get_client

    found: list[str] = []
    with get_client(sync_client=True) as client:
        while page := client.read_flow_runs(limit=200, offset=len(found)):
            found += [run.parameters["alert"]["fingerprint"] for run in page]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alerts", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--outage-seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tally = measure(options.alerts, options.connections, options.distinct, options.outage_seconds, Path(folder))
    print(f"requests             {sum(tally.codes.values()):,} from {options.connections} connections")
    print(f"answers              {', '.join(f'{code}: {count:,}' for code, count in sorted(tally.codes.items()))}")
    print(f"accepted             {tally.accepted:,}")
    print(f"deduplicated         {tally.repeated:,}")
    print(f"sent again           {tally.num_unanswered:,} (the bridge was down)")
    print(
        f"p95 latency          {1000 * tally.p95_seconds:.0f} ms, {len(tally.seconds) / tally.wall_seconds:.0f} requests/s"
    )
    print(f"runs in Prefect      {tally.runs.total():,} for {len(tally.answered):,} distinct alerts")
    print(f"lost / doubled       {tally.lost} / {tally.doubled}")
    print(f"all delivered        {tally.delivered_after_seconds:.0f} s after the last answer")
    if tally.lost or tally.doubled:
        sys.exit(1)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
