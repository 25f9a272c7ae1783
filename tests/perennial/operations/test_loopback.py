"""Who reaches the embedded servers: whoever has the folder's credential, on this machine, and no page of another origin."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import get_client
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from perennial.operations import embedded
from perennial.operations.credential import FILE_NAME, read_credential
from perennial.operations.loopback import Guard
from tasks.core.errors import StoreError
from tasks.core.processes import stop_group
from tests.support.browser import Page, chromium_page

CREDENTIAL = "perennial:a-credential-for-the-tests"
OWN = "http://127.0.0.1:4200"


def client_of(**options: Any) -> TestClient:
    guard = Guard(PlainTextResponse("inside"), CREDENTIAL, **options)
    return TestClient(guard, base_url=OWN, headers={"Authorization": basic(CREDENTIAL)}, follow_redirects=False)


def basic(credential: str) -> str:
    return f"Basic {base64.b64encode(credential.encode()).decode()}"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, 200),
        ({"Origin": OWN}, 200),
        ({"Host": "localhost:4200", "Origin": "http://localhost:4200"}, 200),
        ({"Authorization": ""}, 401),
        ({"Authorization": basic("perennial:wrong")}, 401),
        ({"Authorization": f"Bearer {CREDENTIAL}"}, 401),
        ({"Authorization": basic(CREDENTIAL) + "x"}, 401),
        ({"Authorization": "Basic é".encode()}, 401),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:5000"}, 403),
        ({"Origin": "http://localhost:4200"}, 403),
        ({"Origin": "https://127.0.0.1:4200"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "127.0.0.1"}, 400),
        ({"Host": "127.0.0.1:5000"}, 400),
        ({"Host": "127.0.0.1:4200.evil.example"}, 400),
        ({"Host": ""}, 400),
    ],
)
def test_the_guard_lets_the_user_in_and_nobody_else(headers: dict[str, Any], code: int) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = client_of().request(method, "/", headers=headers)
        assert answer.status_code == code
        assert (answer.text == "inside") == (code == 200)


def test_a_page_of_the_servers_loads_nothing_from_elsewhere_and_stands_in_no_other_page() -> None:
    policy = client_of().get("/").headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'self'" in policy


def test_prefect_s_page_is_led_to_where_its_api_is() -> None:
    answer = client_of(authenticates_itself=True).get("/runs", headers={"Host": "localhost:4200", "Accept": "text/html"})
    assert (answer.status_code, answer.headers["Location"]) == (307, f"{OWN}/runs")


def test_the_credential_is_made_once_and_is_its_owner_s(tmp_path: Path) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(read_credential, [tmp_path] * 50))
    assert len(found) == 1
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o777 == 0o600
    assert found != {read_credential(tmp_path / "other")}


def test_a_credential_that_others_may_read_or_that_is_none_is_refused_and_not_shown(tmp_path: Path) -> None:
    secret = read_credential(tmp_path).partition(":")[2]
    (tmp_path / FILE_NAME).chmod(0o644)
    with pytest.raises(StoreError) as refused:
        read_credential(tmp_path)
    assert secret not in str(refused.value)
    for content in ("", "perennial:short", "\xff"):
        (tmp_path / FILE_NAME).write_text(content, encoding="latin-1")
        (tmp_path / FILE_NAME).chmod(0o600)
        with pytest.raises(StoreError):
            read_credential(tmp_path)


@pytest.fixture
def api(embedded_home: Path) -> str:
    return os.environ["PREFECT_API_URL"]


def test_prefect_s_api_refuses_whoever_is_not_its_client(api: str, embedded_home: Path) -> None:
    credential, origin = read_credential(embedded_home), api.removesuffix("/api")
    shell_step = {"name": "a", "flow_id": "00000000-0000-0000-0000-000000000000", "pull_steps": [{"run": {"script": "id"}}]}
    known, foreign = {"Authorization": basic(credential)}, {"Origin": "http://evil.example"}

    def code(method: str, path: str, headers: dict[str, str], body: Any = None) -> int:
        return httpx.request(method, f"{api}{path}", headers=headers, json=body, timeout=60).status_code

    assert code("GET", "/health", {}) == 200
    assert code("GET", "/admin/version", known) == 200
    assert code("GET", "/admin/version", {}) == 401
    assert code("GET", "/admin/version", {"Authorization": basic("perennial:wrong")}) == 401
    assert code("GET", "/admin/version", known | foreign) == 403
    assert code("GET", "/admin/version", known | {"Host": "evil.example"}) == 400
    assert code("POST", "/deployments/", {}, shell_step) in (401, 403)
    assert code("POST", "/deployments/", foreign, shell_step) == 403
    without_token = httpx.post(f"{api}/deployments/", headers=known, json=shell_step, timeout=60)
    assert (without_token.status_code, without_token.json()["detail"]) == (403, "Missing CSRF token.")
    for asker, allowed in ((origin, origin), ("http://evil.example", None), ("http://127.0.0.1:1", None)):
        preflight = {"Origin": asker, "Access-Control-Request-Method": "POST"}
        answer = httpx.options(f"{api}/deployments/", headers=preflight, timeout=60)
        assert answer.headers.get("Access-Control-Allow-Origin") == allowed
    with get_client(sync_client=True) as client:  # and its client gets in, to read and to write
        assert client.read_deployments() is not None
        assert client.create_flow_from_name("written-with-the-credential")


def test_prefect_s_event_sockets_refuse_strangers_and_foreign_pages(api: str, embedded_home: Path) -> None:
    url = f"{api.replace('http:', 'ws:')}/events/in"
    credential = read_credential(embedded_home)

    async def first_answer(origin: str | None, token: str) -> Any:
        async with connect(url, origin=origin, subprotocols=["prefect"]) as socket:  # type: ignore[list-item, arg-type]
            await socket.send(json.dumps({"type": "auth", "token": token}))
            return json.loads(await socket.recv())

    assert asyncio.run(first_answer(None, credential)) == {"type": "auth_success"}
    with pytest.raises(Exception, match="1008"):
        asyncio.run(first_answer(None, "perennial:wrong"))
    with pytest.raises(InvalidStatus):
        asyncio.run(first_answer("http://evil.example", credential))


def test_the_credential_stands_in_no_log_and_on_no_command_line(api: str, embedded_home: Path) -> None:
    secret = read_credential(embedded_home).partition(":")[2]
    for log in embedded_home.glob("*.log"):
        assert secret not in log.read_text(errors="replace")
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in path.read_bytes()
        except OSError:
            continue


class Impostor(BaseHTTPRequestHandler):
    """Answers 200 to everything, and keeps what it was sent."""

    seen: list[str]

    def do_GET(self) -> None:
        self.seen.append(str(self.headers))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"true")

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def impostor() -> Iterator[tuple[str, list[str]]]:
    seen: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("One", (Impostor,), {"seen": seen}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api", seen
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("own_home")
def test_who_took_the_port_of_a_server_that_is_gone_gets_no_credential() -> None:
    credential = read_credential(embedded.home())
    with impostor() as (url, seen):
        (embedded.home() / "server.json").write_text(json.dumps({"prefect_api_url": url}))
        assert embedded.running_server() is None
        embedded.use_running_server()
        assert "PREFECT_API_URL" not in os.environ
        os.environ["PREFECT_API_URL"] = url  # as somebody exports it who believes that the server still runs
        embedded.use_running_server()
        assert "PREFECT_API_AUTH_STRING" not in os.environ
        assert len(seen) >= 2
        assert credential not in "".join(seen)
        assert basic(credential) not in "".join(seen)


@pytest.mark.usefixtures("own_home")
def test_the_credential_is_for_this_folder_s_server_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "running_server", lambda: "http://127.0.0.1:4200/api")
    (embedded.home() / "server.json").write_text(json.dumps({"prefect_api_url": "http://127.0.0.1:4200/api"}))
    os.environ["PREFECT_API_URL"] = "https://prefect.example/api"
    embedded.use_running_server()
    assert "PREFECT_API_AUTH_STRING" not in os.environ
    os.environ["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    embedded.use_running_server()
    assert os.environ["PREFECT_API_AUTH_STRING"] == read_credential(embedded.home())


def test_mlflow_asks_for_the_credential_and_serves_its_clients(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = embedded.free_port()
    url, credential = f"http://127.0.0.1:{port}", read_credential(embedded.home())
    server = embedded.start_mlflow_server(port)
    try:
        embedded.wait_until_healthy(f"{url}/health", server, is_expected=embedded.is_ours)
        search = f"{url}/api/2.0/mlflow/experiments/search?max_results=5"
        known = {"Authorization": basic(credential)}
        headers: dict[str, str]
        for headers, code in (
            ({}, 401),
            ({"Authorization": basic("perennial:wrong")}, 401),
            (known, 200),
            (known | {"Host": "evil.example"}, 400),
            (known | {"Origin": "http://evil.example"}, 403),
            (known | {"Origin": "http://127.0.0.1:4200"}, 403),
        ):
            assert httpx.get(search, headers=headers, timeout=60).status_code == code
        assert httpx.get(url, timeout=60).headers["WWW-Authenticate"].startswith("Basic")
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", credential.partition(":")[0])
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", credential.partition(":")[2])
        client = MlflowClient(url)
        run = client.create_run(client.create_experiment("desk")).info.run_id
        client.log_text(run, "a text", "note.txt")
        assert [one.path for one in client.list_artifacts(run)] == ["note.txt"]
        assert list((embedded.home() / "mlflow" / "artifacts").rglob("note.txt"))
    finally:
        stop_group(server)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("own_home")
def test_a_browser_logs_in_and_the_pages_ask_nobody_else(tmp_path: Path) -> None:
    port, mlflow_port = embedded.free_port(), embedded.free_port()
    with (
        chromium_page(tmp_path) as page,
        embedded.servers(port, mlflow_port, lambda line: None) as (prefect, _),
    ):
        credential = read_credential(embedded.home())
        page.open(f"http://localhost:{port}/", width=1200)
        wait_for(page, "document.querySelector('input[type=password]') !== null")
        assert page.evaluate("location.origin") == prefect
        page.evaluate("document.querySelector('input[type=password]').focus()")
        page.call("Input.insertText", text=credential)
        page.evaluate("document.querySelector('button').click()")
        wait_for(page, "document.body.innerText.includes('Deployments')")
        assert {urlsplit(url).hostname for url in page.requests} <= {"127.0.0.1", "localhost", None}
        page.open(f"http://{credential}@127.0.0.1:{mlflow_port}/", width=1200)
        wait_for(page, "document.body.innerText.includes('Experiments')")
        assert {urlsplit(url).hostname for url in page.requests} <= {"127.0.0.1", None}


def wait_for(page: Page, condition: str) -> None:
    """Waits until a JavaScript condition holds."""
    arrived = "const seen = setInterval(() => {{ if ({0}) {{ clearInterval(seen); done(true) }} }}, 50)"
    assert page.evaluate(f"new Promise(done => {{ {arrived.format(condition)}; setTimeout(() => done(false), 50000) }})")
