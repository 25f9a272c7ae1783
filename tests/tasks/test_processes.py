"""Children end with their parent, however it ends; where asked for, their children too."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import psutil

from tasks.processes import start_guarded, stop_group

LIMIT_SECONDS = 60
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
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tmp_path), str(Path(__file__).parents[2])))}
    wrapper = start_guarded("wrapper", environment=environment, with_children=True, stdout=subprocess.PIPE)
    try:
        assert wrapper.stdout is not None
        child = psutil.Process(int(wrapper.stdout.readline()))
        assert child.ppid() == wrapper.pid
        wrapper.kill()
        wrapper.wait()
        deadline = time.monotonic() + LIMIT_SECONDS
        while _works(child) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not _works(child)
    finally:
        stop_group(wrapper)


def _works(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
