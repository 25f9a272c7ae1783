"""The bridge's doors over HTTP, with Prefect replaced at the seam: each answer, the metrics, the health, and no 5xx ever."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perennial.services.alert_bridge import create_app
from perennial.services.alert_doors import RequestRejectedError, read_body
from perennial.services.json_lines import JsonLines
from tasks.alerts import BridgeConfig
from tasks.alerts.authentication import Secrets
from tasks.alerts.delivery import UnavailableError
from tasks.alerts.queue import AlertQueue
from tasks.contracts.alerts import Alert
from tests.support.waiting import wait_until

TOKEN, KEY = "a-token-for-the-tests", b"a-key-for-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
NOW = "2026-05-01T06:00:00Z"
PLAIN = {"name": "ThumbsDown", "signal": "feedback", "starts_at": NOW}


class FakePrefect:
    def __init__(self) -> None:
        self.runs: dict[str, Alert] = {}
        self.down = False

    async def __call__(self, alert: Alert, key: str) -> str:
        if self.down:
            raise UnavailableError("ConnectError")
        self.runs[key] = alert
        return f"run-of-{key}"


class Bridge:
    """The service, its queue and its Prefect."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.config = BridgeConfig.model_validate(
            {
                "deployments": {"desk": "a/b"},
                "max_requests_per_second": 1e5,
                "max_burst_requests": 10**6,
                "retry_seconds": 0.01,
            }
            | {"max_retry_seconds": 0.05}
            | changes
        )
        self.queue = AlertQueue(
            folder / "q.db",
            cooldown_seconds=self.config.cooldown_seconds,
            max_waiting=self.config.max_waiting_alerts,
        )
        self.prefect = FakePrefect()
        self.client = TestClient(
            create_app(self.config, Secrets((TOKEN.encode(),), (KEY,)), self.queue, self.prefect),
            raise_server_exceptions=False,
        )

    def post(self, document: Any, headers: dict[str, str] | None = None) -> Any:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return self.client.post("/alerts", content=body, headers=AUTHORIZED if headers is None else headers)

    def metric(self, name: str) -> float:
        text = self.client.get("/metrics").text
        return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


@pytest.fixture
def make_bridge(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    bridges: list[Bridge] = []

    def make(**changes: Any) -> Bridge:
        bridges.append(Bridge(tmp_path, **changes))
        bridges[-1].client.__enter__()
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.client.__exit__(None, None, None)
        bridge.queue.close()


def test_an_alert_is_accepted_once_and_becomes_one_run(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()
    first, again = bridge.post(PLAIN), bridge.post(PLAIN)
    assert (first.status_code, first.json()["accepted"]) == (202, 1)
    assert (again.status_code, again.json()["repeated"]) == (200, 1)
    wait_until(lambda: len(bridge.prefect.runs) == 1 and bridge.queue.backlog().num_waiting == 0)
    (key,) = bridge.prefect.runs
    assert key.startswith("alert-desk-")
    assert bridge.metric('perennial_alert_bridge_alerts_total{outcome="accepted"}') == 1
    assert bridge.metric('perennial_alert_bridge_alerts_total{outcome="repeated"}') == 1
    assert bridge.metric('perennial_alert_bridge_deliveries_total{result="delivered"}') == 1
    assert bridge.metric('perennial_alert_bridge_requests_total{code="202"}') == 1


def test_with_prefect_down_alerts_are_kept_and_delivered_when_it_comes_back(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()
    bridge.prefect.down = True
    assert bridge.post(PLAIN).status_code == 202
    wait_until(lambda: bridge.metric('perennial_alert_bridge_deliveries_total{result="unavailable"}') >= 2)
    assert bridge.metric("perennial_alert_bridge_waiting") == 1
    assert bridge.client.get("/healthz").json() == {"status": "ok", "waiting": 1, "parked": 0}
    bridge.prefect.down = False
    wait_until(lambda: bridge.queue.backlog().num_waiting == 0)
    assert len(bridge.prefect.runs) == 1


def test_resolved_alerts_start_nothing(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()
    answer = bridge.post({"alerts": [{"status": "resolved", "labels": {}, "startsAt": NOW}]})
    assert (answer.status_code, answer.json()["resolved"]) == (200, 1)
    assert bridge.queue.backlog().num_waiting == 0


def test_a_faulty_alert_is_named_and_its_neighbour_accepted(make_bridge: Callable[..., Bridge]) -> None:
    labels = {"alertname": "a"}
    answer = make_bridge().post({"alerts": [{"labels": labels, "startsAt": NOW}, {"labels": labels}]})
    assert answer.status_code == 422
    assert answer.json()["accepted"] == 1
    (fault,) = answer.json()["faults"]
    assert (fault["where"], fault["found"]) == ("alerts.1.startsAt", "nothing in an object with 1 field")
    assert "a time with a zone" in fault["expected"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-Grafana-Alerting-Signature": "00" * 32}])
def test_strangers_are_refused_and_learn_nothing(make_bridge: Callable[..., Bridge], headers: dict[str, str]) -> None:
    bridge = make_bridge()
    answer = bridge.post(PLAIN, headers)
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "desk" not in answer.text
    assert bridge.queue.backlog().num_waiting == 0


def test_a_signed_body_is_accepted_and_a_changed_one_is_not(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()
    body = json.dumps(PLAIN).encode()
    headers = {"X-Grafana-Alerting-Signature": hmac.new(KEY, body, hashlib.sha256).hexdigest()}
    assert bridge.post(body + b" ", headers).status_code == 401
    assert bridge.post(body, headers).status_code == 202


def test_a_signed_request_that_is_old_is_refused_where_a_time_is_asked_for(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(timestamp_header="X-Time")
    for at, code in ((int(time.time()) - 400, 401), (int(time.time()), 202)):
        body = json.dumps(PLAIN).encode()
        signature = hmac.new(KEY, f"{at}:".encode() + body, hashlib.sha256).hexdigest()
        assert bridge.post(body, {"X-Grafana-Alerting-Signature": signature, "X-Time": str(at)}).status_code == code


def test_a_large_body_is_refused_announced_or_not(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(max_body_bytes=1024)
    assert bridge.post(b" " * 1025).status_code == 413
    chunks = bridge.client.post("/alerts", content=(b" " * 100 for _ in range(50)), headers=AUTHORIZED)
    assert chunks.status_code == 413


def test_too_many_requests_are_told_when_to_come_back(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(max_requests_per_second=0.1, max_burst_requests=2)
    codes = [bridge.post(PLAIN).status_code for _ in range(2)]
    assert codes == [202, 200]
    assert bridge.post(PLAIN, {}).status_code == 401  # strangers use up nobody's allowance
    last = bridge.post(PLAIN)
    assert last.status_code == 429
    assert 1 <= int(last.headers["Retry-After"]) <= 10


def test_what_cannot_be_stored_is_answered_503_and_is_not_accepted(
    make_bridge: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = make_bridge(max_waiting_alerts=1)
    bridge.prefect.down = True
    assert bridge.post(PLAIN).status_code == 202
    full = bridge.post({**PLAIN, "name": "Other"})
    assert (full.status_code, full.headers["Retry-After"]) == (503, "10")

    def broken(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bridge.queue, "offer", broken)
    monkeypatch.setattr(bridge.queue, "backlog", broken)
    assert bridge.post(PLAIN).status_code == 503
    assert bridge.client.get("/healthz").status_code == 503
    assert bridge.client.get("/metrics").status_code == 503


def test_a_restarted_bridge_remembers_what_it_accepted(tmp_path: Path, make_bridge: Callable[..., Bridge]) -> None:
    first = make_bridge()
    first.prefect.down = True
    first.post(PLAIN)
    second = make_bridge()
    wait_until(lambda: len(second.prefect.runs) == 1)
    assert second.post(PLAIN).json()["repeated"] == 1


def test_a_courier_that_died_is_counted_started_again_and_unhealthy_meanwhile(
    make_bridge: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bridge = make_bridge(retry_seconds=0.2, max_retry_seconds=0.2)
    due = bridge.queue.due

    def broken(*_: Any) -> None:
        raise TypeError("a defect")

    assert bridge.client.get("/healthz").status_code == 200
    monkeypatch.setattr(bridge.queue, "due", broken)
    assert bridge.post(PLAIN).status_code == 202
    wait_until(lambda: bridge.client.get("/healthz").status_code == 503)
    assert bridge.client.get("/healthz").json() == {"status": "delivery has stopped", "waiting": 1, "parked": 0}
    wait_until(lambda: bridge.metric("perennial_alert_bridge_courier_deaths_total") >= 2)
    assert "delivery ended with TypeError" in caplog.text
    monkeypatch.setattr(bridge.queue, "due", due)
    wait_until(lambda: bridge.queue.backlog().num_waiting == 0)
    assert bridge.client.get("/healthz").status_code == 200
    assert bridge.metric("perennial_alert_bridge_delivering") == 1


def test_a_defect_in_one_delivery_leaves_the_others_and_the_health_alone(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()

    async def defect(alert: Alert, key: str) -> str:
        if alert.name == "Bad":
            raise AssertionError("a defect")
        return "run"

    bridge.prefect.__class__ = type("Defective", (FakePrefect,), {"__call__": lambda self, alert, key: defect(alert, key)})
    bridge.post({**PLAIN, "name": "Bad"})
    bridge.post(PLAIN)
    wait_until(lambda: bridge.metric('perennial_alert_bridge_deliveries_total{result="failed"}') >= 2)
    assert bridge.queue.backlog().num_waiting == 1
    assert bridge.client.get("/healthz").status_code == 200


def test_a_row_of_another_release_is_told_by_metrics_and_health(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge()
    bridge.prefect.down = True
    bridge.post(PLAIN)
    bridge.queue._connection.execute("UPDATE alerts SET alert = '{}', next_attempt_at = 0")
    wait_until(lambda: bridge.metric("perennial_alert_bridge_parked") == 1)
    assert bridge.client.get("/healthz").json() == {"status": "ok", "waiting": 0, "parked": 1}


def test_every_request_is_counted_once_by_its_answer_and_every_alert_once(
    make_bridge: Callable[..., Bridge], monkeypatch: pytest.MonkeyPatch
) -> None:
    bridge = make_bridge(max_body_bytes=1024)
    two_faults = {"alerts": [{"labels": {}}, {"labels": {"alertname": "a"}, "startsAt": NOW}]}
    for document in (b"no JSON", [1], {"alerts": []}, two_faults, PLAIN, PLAIN, b" " * 2000):
        bridge.post(document)
    bridge.post(PLAIN, {})
    bridge.client.get("/alerts")

    def broken(*_: Any) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr(bridge.queue, "offer", broken)
    assert bridge.post({**PLAIN, "name": "Other"}).status_code == 500
    codes = {"422": 4, "202": 1, "200": 1, "413": 1, "401": 1, "405": 1, "500": 1}
    for code, count in codes.items():
        assert bridge.metric(f'perennial_alert_bridge_requests_total{{code="{code}"}}') == count, code
    outcomes = {"accepted": 2, "repeated": 1, "invalid": 1, "resolved": 0}
    for outcome, count in outcomes.items():
        assert bridge.metric(f'perennial_alert_bridge_alerts_total{{outcome="{outcome}"}}') == count, outcome
    assert bridge.metric("perennial_alert_bridge_request_seconds_count") == sum(codes.values())


def test_log_lines_are_json_and_hold_no_label(make_bridge: Callable[..., Bridge], caplog: pytest.LogCaptureFixture) -> None:
    bridge = make_bridge()
    with caplog.at_level(logging.INFO):
        labels = {"alertname": "Ada Lovelace called", "customer": "Ada Lovelace", "model": "Ada Lovelace"}
        bridge.post({"alerts": [{"labels": labels, "startsAt": NOW, "annotations": {"x": "Ada Lovelace"}}]})
        bridge.post({"alerts": [{"labels": labels | {"model": "desk"}, "startsAt": NOW}]})
        wait_until(lambda: bridge.queue.backlog().num_waiting == 0)
    lines = [
        JsonLines().format(record) for record in caplog.records if record.name.startswith(("flows", "perennial", "tasks"))
    ]
    assert any("1 accepted" in json.loads(line)["message"] for line in lines)
    assert "Ada" not in "".join(lines)


def test_the_service_describes_itself(make_bridge: Callable[..., Bridge]) -> None:
    description = make_bridge().client.get("/openapi.json").json()
    operation = description["paths"]["/alerts"]["post"]
    assert {"202", "401", "413", "422", "429", "503"} <= set(operation["responses"])
    webhook, plain = operation["requestBody"]["content"]["application/json"]["schema"]["anyOf"]
    assert set(webhook["properties"]["alerts"]["items"]["required"]) == {"labels", "startsAt"}
    assert set(plain["required"]) == {"name", "starts_at"}
    assert "$ref" not in json.dumps(operation)


def test_a_body_that_never_comes_is_given_up() -> None:
    config = BridgeConfig(deployments={"desk": "a/b"}, read_timeout_seconds=0.1)

    async def silent() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    for receive in (silent, gone):
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        with pytest.raises(RequestRejectedError) as raised:
            asyncio.run(read_body(request, config))
        assert raised.value.code == 408


@pytest.fixture(scope="module")
def shared_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    bridge = Bridge(tmp_path_factory.mktemp("bridge"))
    with bridge.client:
        yield bridge
    bridge.queue.close()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
ALERTS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["firing", "resolved"]) | JSON,
        "labels": st.dictionaries(st.sampled_from(["alertname", "model", "signal"]), st.text() | JSON) | JSON,
        "annotations": st.dictionaries(st.sampled_from(["window_start", "window_end"]), st.text() | JSON) | JSON,
        "startsAt": st.datetimes().map(lambda moment: moment.isoformat() + "Z") | JSON,
        "fingerprint": st.text("abc", min_size=1, max_size=3) | JSON,
    },
)
BODIES = (
    st.binary(max_size=300)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(ALERTS | JSON, max_size=4).map(lambda alerts: json.dumps({"alerts": alerts}).encode())
)
HEADERS = st.dictionaries(
    st.sampled_from(["Authorization", "X-Grafana-Alerting-Signature", "Content-Type", "Content-Encoding"]),
    st.sampled_from([f"Bearer {TOKEN}", "Bearer", "gzip", "", "00"])
    | st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=30),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES, headers=HEADERS | st.just(AUTHORIZED))
def test_nothing_that_is_sent_is_answered_by_a_5xx(shared_bridge: Bridge, body: bytes, headers: dict[str, str]) -> None:
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = shared_bridge.client.post("/alerts", content=body, headers=encoded)
    assert answer.status_code in {200, 202, 401, 422}
    if answer.status_code == 422:
        assert all(set(fault) == {"where", "found", "expected"} for fault in answer.json()["faults"])
