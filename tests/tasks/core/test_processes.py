"""Children end with their parent, however it ends; where asked for, their children too."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.core.processes import start_guarded, start_guarded_program, stop_group

LIMIT_SECONDS = 60
PARENT = """
import sys, time
from tasks.core.processes import start_guarded, start_guarded_program
child = {start}
print(child.pid, flush=True)
time.sleep(600)
"""
MODULE = "start_guarded('http.server', ['0'], stdout=open(sys.argv[1], 'wb'))"
PROGRAM = "start_guarded_program(['sh', '-c', 'echo up; exec sleep 600'], stdout=open(sys.argv[1], 'wb'))"
WRAPPER = """
import subprocess, sys
program = "import time; print('ready', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


def test_what_a_wrapper_started_dies_with_it_even_by_kill(tmp_path: Path) -> None:
    (tmp_path / "wrapper.py").write_text(WRAPPER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[3])))}
    wrapper = start_guarded("wrapper", environment=environment, with_children=True, stdout=subprocess.PIPE)
    try:
        assert wrapper.stdout is not None
        child = psutil.Process(int(wrapper.stdout.readline()))
        assert child.ppid() == wrapper.pid
        wrapper.kill()
        wrapper.wait()
        _wait_until(lambda: not _works(child))
    finally:
        stop_group(wrapper)


@pytest.mark.parametrize("start", [MODULE, PROGRAM], ids=["module", "program"])
def test_a_killed_parent_takes_its_child_along(start: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    command = [sys.executable, "-c", PARENT.format(start=start), str(said)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        try:
            _wait_until(lambda: said.read_bytes() != b"")
            assert _works(child)
            parent.kill()
            parent.wait()
            _wait_until(lambda: not _works(child))
        finally:
            parent.kill()
            if _works(child):
                child.kill()


def test_a_program_runs_where_and_as_it_was_told_and_leads_its_own_group(tmp_path: Path) -> None:
    with (tmp_path / "told").open("wb") as told:
        child = start_guarded_program(
            ["sh", "-c", 'echo "$PWD|$WORD|${HOME-none}|$1"; exec sleep 600', "sh", "-m two words"],
            environment={"PATH": os.environ["PATH"], "WORD": "said"},
            folder=tmp_path,
            stdout=told,
        )
        try:
            _wait_until(lambda: (tmp_path / "told").read_text() != "")
            assert os.getpgid(child.pid) == child.pid
        finally:
            code = stop_group(child)
    assert (tmp_path / "told").read_text() == f"{tmp_path}|said|none|-m two words\n"
    assert code == -signal.SIGTERM


def test_a_program_that_is_not_there_ends_its_child(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = start_guarded_program([str(tmp_path / "nothing")], stderr=log)
        assert child.wait(timeout=60) == 1
    assert "FileNotFoundError" in (tmp_path / "log").read_text()


def _works(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)
