"""Connections that never become a request end in time, and do not keep others out; over real sockets."""

from __future__ import annotations

import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvicorn

from perennial.services.alert_bridge import create_app, server_settings
from tasks.alerts import BridgeConfig
from tasks.alerts.authentication import Secrets
from tasks.alerts.queue import AlertQueue
from tasks.contracts.alerts import Alert

TOKEN = "a-token-for-the-tests"
WITH_TOKEN = f"Authorization: Bearer {TOKEN}\r\n"
HEAD_SECONDS, MAX_CONNECTIONS = 0.5, 5


class Served:
    """A bridge on a port of its own."""

    def __init__(self, folder: Path) -> None:
        config = BridgeConfig(
            deployments={"desk": "a/b"}, read_timeout_seconds=HEAD_SECONDS, max_connections=MAX_CONNECTIONS
        )
        self.queue = AlertQueue(folder / "q.db", cooldown_seconds=60)

        async def start_run(alert: Alert, key: str) -> str:
            return "run"

        app = create_app(config, Secrets((TOKEN.encode(),), (b"a-key-for-the-tests",)), self.queue, start_run)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.server = uvicorn.Server(server_settings(app, config, "127.0.0.1", self.port))
        self.thread = threading.Thread(target=self.server.run)

    def connect(self, data: bytes = b"") -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(data)
        return connection

    def metrics(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=20) as answer:
            return str(answer.read().decode())


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    one = Served(tmp_path)
    one.thread.start()
    try:
        while not one.server.started:
            time.sleep(0.01)
        yield one
    finally:
        one.server.should_exit = True
        one.thread.join(timeout=30)
        one.queue.close()


def received(connection: socket.socket) -> bytes:
    """Everything until the other side closes."""
    found = b""
    try:
        while data := connection.recv(65_536):
            found += data
    except ConnectionResetError:
        pass
    return found


def is_closed_while_sending(connection: socket.socket, piece: bytes) -> bool:
    """Whether the other side ends a connection that goes on sending, a little at a time."""
    try:
        for _ in range(200):
            connection.sendall(piece)
            time.sleep(0.05)
    except OSError:
        return True
    return False


HEALTHY = b"GET /healthz HTTP/1.1\r\nHost: b\r\n\r\n"
HALF = b"POST /alerts HTTP/1.1\r\nHost: b\r\n"


@pytest.mark.parametrize("data", [b"", b"P", HALF, HALF + WITH_TOKEN.encode()], ids=["nothing", "a letter", "half", "token"])
def test_a_head_that_does_not_end_ends_the_connection(served: Served, data: bytes) -> None:
    with served.connect(data) as connection:
        assert received(connection) == b""
    assert 'connections_closed_total{reason="slow"} 1.0' in served.metrics()


def test_a_head_sent_byte_by_byte_ends_the_connection_too(served: Served) -> None:
    with served.connect(HALF) as connection:
        assert is_closed_while_sending(connection, b"X: 1\r\n")


def test_the_second_head_of_a_connection_has_a_limit_too(served: Served) -> None:
    with served.connect(HEALTHY) as connection:
        answer = connection.recv(65_536)
        while not answer.endswith(b"}"):  # its body may come behind its head
            answer += connection.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 200")
        connection.sendall(HALF)
        assert received(connection) == b""


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("Content-Length: 100\r\n", b"401"),
        (f"{WITH_TOKEN}Content-Length: 100\r\n", b"408"),
        (f"{WITH_TOKEN}Content-Length: 999999999\r\n", b"413"),
        (f"{WITH_TOKEN}Transfer-Encoding: chunked\r\n", b"408"),
    ],
)
def test_a_body_that_continues_after_its_response_does_not_hold_the_connection(
    served: Served, head: str, code: bytes
) -> None:
    with served.connect(f"POST /alerts HTTP/1.1\r\nHost: b\r\n{head}\r\n".encode()) as connection:
        assert connection.recv(65_536).split(b" ")[1] == code
        assert is_closed_while_sending(connection, b"1\r\n \r\n" if "chunked" in head else b" ")


def test_headers_have_a_size(served: Served) -> None:
    with served.connect(HALF + b"X: " + b"x" * 100_000) as connection:
        assert received(connection)[:12] in (b"HTTP/1.1 400", b"")  # an answer may be lost behind what was not read


def test_silent_connections_are_replaced_by_new_ones(served: Served) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(served.connect(b"P")) for _ in range(MAX_CONNECTIONS * 4)]
        with served.connect(HEALTHY) as connection:
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200")
        assert received(silent[0]) == b""
    wait_until(lambda: 'reason="crowd"} 16.0' in served.metrics() or 'reason="crowd"} 17.0' in served.metrics())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
