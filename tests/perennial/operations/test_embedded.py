"""The embedded servers stop when they are told to, however they were started."""

from __future__ import annotations

import subprocess
import sys

_SERVE = """
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell leaves it for a job in the background
from perennial.operations.embedded import wait_for_interrupt
print("up", flush=True)
wait_for_interrupt()
"""


def test_a_background_server_stops_on_sigterm() -> None:
    process = subprocess.Popen([sys.executable, "-c", _SERVE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for _ in range(50):  # the handler is set just after the line
        process.terminate()
        try:
            code = process.wait(timeout=0.2)
            break
        except subprocess.TimeoutExpired:
            continue
    else:
        process.kill()
        raise AssertionError("it did not stop")
    process.stdout.close()
    assert code in (0, -15)
