"""The seam to a real Prefect server: one key, one run; and every way in which it can say no."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from flows.on_alert import retrain_on_alert
from flows.rollback import rollback
from flows.support import alert_runs
from perennial.operations import embedded
from perennial.services.alert_bridge import PrefectRuns
from tasks.alerts.delivery import AlertRejectedError, UnavailableError
from tasks.contracts.alerts import Alert
from tests.support.answering import answer, answering

START = datetime(2026, 5, 1, 6, tzinfo=UTC)
ALERT = Alert(
    fingerprint="f", model="desk", name="a", signal="drift", sender="google-cloud", starts_at=START,
    window_start=START - timedelta(hours=6), window_end=START,
)  # fmt: skip


@pytest.mark.usefixtures("embedded_home")
def test_the_same_key_is_the_same_run_with_the_alert_as_its_parameter() -> None:
    config = {"name": "desk", "examples": {"path": "rows.jsonl"}}
    retrain_on_alert.to_deployment("for-runs", parameters={"config": config}).apply()
    runs = PrefectRuns({"desk": "retrain-on-alert/for-runs"})

    async def scenario() -> tuple[list[str], Alert]:
        ids = [await runs(ALERT, key) for key in ("key-1", "key-1", "key-2")]
        async with get_client() as client:
            run = await client.read_flow_run(ids[0])  # type: ignore[arg-type]
        return ids, Alert.model_validate(run.parameters["alert"])

    ids, alert = asyncio.run(scenario())
    assert ids[0] == ids[1] != ids[2]
    assert alert == ALERT


@pytest.mark.usefixtures("embedded_home")
def test_a_missing_or_unfit_deployment_refuses() -> None:
    rollback.to_deployment("unfit").apply()
    for name, words in (("retrain-on-alert/absent", "no deployment"), ("rollback/unfit", "status 4")):
        with pytest.raises(AlertRejectedError, match=words):
            asyncio.run(PrefectRuns({"desk": name})(ALERT, "key"))
    with pytest.raises(AlertRejectedError, match="no deployment is configured for desk"):
        asyncio.run(PrefectRuns({"bank": "a/b"})(ALERT, "key"))


def test_a_server_that_is_down_is_unavailable() -> None:
    url = f"http://127.0.0.1:{embedded.free_port()}/api"
    with (
        temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
        pytest.raises(UnavailableError, match="ConnectError"),
    ):
        asyncio.run(PrefectRuns({"desk": "retrain-on-alert/any"})(ALERT, "key"))


PAGE, JSON = "Content-Type: text/html", "Content-Type: application/json"
ODD_ANSWERS = {
    "a page": answer("200 OK", b"<html>Please log in</html>", PAGE),
    "a page that claims to be JSON": answer("200 OK", b"<html>Please log in</html>", JSON),
    "JSON of another release": answer("200 OK", b'{"deployment": {"uuid": 1}}', JSON),
    "a list": answer("200 OK", b"[]", JSON),
    "null": answer("200 OK", b"null", JSON),
    "a number": answer("200 OK", b"7", JSON),
    "an empty body": answer("200 OK", b"", JSON),
    "half of the JSON": answer("200 OK", b'{"id": "3', JSON),
    "fewer bytes than announced": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "bytes that are no text": answer("200 OK", b"\xff\xfe{", JSON),
    "a broken gzip": answer("200 OK", b"no gzip", JSON, "Content-Encoding: gzip"),
    "no content": answer("204 No Content"),
    "a redirect to itself": answer("302 Found", b"", "Location: /login"),
    "a redirect to nowhere": answer("302 Found", b"", "Location: http://[/"),
    "a redirect without a place": answer("302 Found"),
    "a redirect to another scheme": answer("302 Found", b"", "Location: ftp://there/"),
    "not modified": answer("304 Not Modified"),
    "forbidden, as a page": answer("403 Forbidden", b"<html>no</html>", PAGE),
    "unauthorized": answer("401 Unauthorized", b"{}", JSON),
    "too many": answer("429 Too Many Requests", b"{}", JSON, "Retry-After: 0"),
    "an error, as a page": answer("500 Internal Server Error", b"<html>oops</html>", PAGE),
    "no HTTP": b"220 smtp.example ESMTP\r\n",
    "nothing at all": b"",
}
REFUSALS = {
    "conflict": answer("409 Conflict", b'{"detail": "parameters"}', JSON),
    "unprocessable": answer("422 Unprocessable Entity", b'{"exception_detail": []}', JSON),
    "unprocessable, as a page": answer("422 Unprocessable Entity", b"<html>", PAGE),
    "not found": answer("404 Not Found", b"<html>", PAGE),
}


def raised_by(url: str) -> Exception:
    """What one delivery to a server raises."""
    with temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}), pytest.raises(Exception) as raised:  # noqa: PT011
        asyncio.run(PrefectRuns({"desk": "retrain-on-alert/any"})(ALERT, "key"))
    return raised.value


@pytest.mark.parametrize("sent", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
def test_an_answer_that_is_not_prefect_s_is_unavailable(sent: bytes) -> None:
    with answering(sent) as url:
        assert isinstance(raised_by(url), UnavailableError)


@pytest.mark.parametrize("sent", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_no_is_a_refusal(sent: bytes) -> None:
    with answering(sent) as url:
        assert isinstance(raised_by(url), AlertRejectedError)


def test_an_answer_that_never_ends_is_given_up_in_time_and_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n["
    monkeypatch.setattr(alert_runs, "MAX_RESPONSE_BYTES", 2**20)
    with answering(head, repeat=b"1," * 4096) as url:
        assert "ReadError" in str(raised_by(url))
    monkeypatch.setattr(alert_runs, "DELIVERY_TIMEOUT_SECONDS", 0.5)
    for retry_later in (answer("429 Too Many Requests", b"", "Retry-After: 3600"), b"HTTP/1.1 200 OK\r\nX-"):
        with answering(retry_later, repeat=b"" if b"429" in retry_later else b"x") as url:
            assert isinstance(raised_by(url), UnavailableError)


def test_a_wrong_name_a_wrong_certificate_and_a_wrong_scheme_are_unavailable(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other.example", "-days", "2",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    with answering(b"", tls=tls) as url:
        assert isinstance(raised_by(url.replace("http:", "https:")), UnavailableError)
        assert isinstance(raised_by(url), UnavailableError)
    assert isinstance(raised_by("http://no-such-host.invalid/api"), UnavailableError)
