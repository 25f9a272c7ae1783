"""The embedded servers stop when they are told to, however they were started."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from perennial.operations import embedded

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


def test_a_port_is_drawn_that_no_connection_gets_by_itself() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", embedded.free_port()))
        drawn = {embedded.free_port() for _ in range(50)}
        assert taken.getsockname()[1] not in drawn
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0]) if sys.platform == "linux" else 49152
    assert max(drawn) < lowest
    assert len(drawn) > 40
