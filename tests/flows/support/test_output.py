"""A healthy run outlives the reader of its output: a closed pipe, and a worker that is killed alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

import pytest

from perennial.operations import embedded
from tasks.core.processes import start_guarded, stop_group

ROOT = Path(__file__).parents[3]
_WRITER = """
import logging, sys, time
from pathlib import Path
from rich.console import Console
import flows
if len(sys.argv) > 2:
    from perennial.cli.terminal import StageLines
    StageLines(Console()).showing().__enter__()
console, log = Console(file=sys.stderr), logging.getLogger("a")
logging.basicConfig(stream=sys.stdout)
deadline = time.monotonic() + 2
print("begun", flush=True)
while time.monotonic() < deadline:
    console.print("a line")
    print("a line", flush=True)
    print("a line", file=sys.stderr, flush=True)
    log.warning("a line")
    sys.stdout.buffer.write(b"bytes"); sys.stdout.buffer.flush()
    time.sleep(0.05)
Path(sys.argv[1]).write_text("completed")
"""


@pytest.mark.parametrize("where", ["worker", "terminal"])
@pytest.mark.parametrize("lost", ["stdout", "stderr", "both", "one pipe for both"])
def test_a_run_goes_on_when_nobody_reads_its_output(tmp_path: Path, lost: str, where: str) -> None:
    errors = subprocess.STDOUT if lost == "one pipe for both" else subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path / "end"), *(["terminal"] if where == "terminal" else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **({"PREFECT__FLOW_RUN_ID": "0" * 32} if where == "worker" else {})},
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    assert process.stdout is not None
    assert b"begun" in process.stdout.readline()
    if lost != "stderr":
        process.stdout.close()
    if lost in ("stderr", "both"):
        assert process.stderr is not None
        process.stderr.close()
    process.wait(timeout=60)
    assert process.returncode in (0, 120), "120: the interpreter could not flush what was left at its end"
    assert (tmp_path / "end").read_text() == "completed"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_healthy_run_completes_when_its_worker_alone_is_killed(own_home: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.deployments import run_deployment

    from tests.support.standin import talkative

    with ExitStack() as stack:
        api = stack.enter_context(embedded.prefect_api(print))
        client = stack.enter_context(get_client(sync_client=True))
        client.create_work_pool(WorkPoolCreate(name="cpu", type="process"))
        client.create_deployment(
            client.create_flow(talkative),
            talkative.name,
            work_pool_name="cpu",
            entrypoint="tests/support/standin.py:talkative",
            pull_steps=[{"prefect.deployments.steps.set_working_directory": {"directory": str(ROOT)}}],
        )
        worker = start_guarded(
            "prefect",
            ["worker", "start", "--pool", "cpu"],
            environment={**os.environ, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(stop_group, worker)
        run = run_deployment("talkative/talkative", parameters={"folder": str(own_home)}, timeout=0)
        run_id = UUID(str(run.id))  # type: ignore[union-attr]
        begun, told = own_home / "begun", own_home / "worker-is-gone"
        for _ in range(240):
            if begun.exists():
                break
            time.sleep(0.5)
        pid = int(begun.read_text())
        os.kill(worker.pid, signal.SIGKILL)  # the worker alone
        worker.wait()
        told.touch()
        os.kill(pid, 0)
        for _ in range(240):
            state = client.read_flow_run(run_id).state
            if state is not None and state.is_final():
                break
            time.sleep(0.5)
        assert state is not None
        assert state.name == "Completed", state.message
