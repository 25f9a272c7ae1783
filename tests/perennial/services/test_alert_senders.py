"""Each sender's address over HTTP: from its own request, with its own signature, to the run; and who is kept out."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from fastapi.testclient import TestClient
from moto import mock_aws
from moto.core import DEFAULT_ACCOUNT_ID
from moto.sns.models import sns_backends

from perennial.services.alert_bridge import create_app
from tasks.alerts import BridgeConfig
from tasks.alerts.accept import default_variable
from tasks.alerts.authentication import Secrets, credentials_of
from tasks.alerts.queue import AlertQueue
from tasks.alerts.sns import _string_to_sign, has_sns_signature
from tests.support.alert_samples import ENVELOPE, SAMPLES, Sample
from tests.support.waiting import wait_until

SECRET = "a-secret-of-the-tests"


class Bridge:
    """The service with accept rules; Prefect is replaced, and what SNS would be visited for is noted."""

    def __init__(self, folder: Path, accept: list[Any], **changes: Any) -> None:
        settings = {"deployments": {"desk": "a/b"}, "accept": accept, "retry_seconds": 0.01, "max_burst_requests": 10**6}
        self.config = BridgeConfig.model_validate(settings | changes)
        environment = {default_variable(rule.sender): SECRET for rule in self.config.accept}
        credentials = {rule.sender: credentials_of(rule, environment) for rule in self.config.accept}
        self.runs: dict[str, Any] = {}
        self.visited: list[str] = []
        self.answers = True
        self.queue = AlertQueue(folder / "q.db", cooldown_seconds=60)
        app = create_app(self.config, Secrets(), self.queue, self._start, credentials, self._visit)
        self.client = TestClient(app, raise_server_exceptions=False)

    async def _start(self, alert: Any, key: str) -> str:
        self.runs[key] = alert
        return key

    async def _visit(self, url: str) -> bool:
        self.visited.append(url)
        return self.answers


@pytest.fixture
def make_bridge(tmp_path: Path) -> Iterator[Callable[..., Bridge]]:
    bridges: list[Bridge] = []

    def make(*accept: Any, **changes: Any) -> Bridge:
        bridges.append(Bridge(tmp_path, list(accept), **changes))
        bridges[-1].client.__enter__()
        return bridges[-1]

    yield make
    for bridge in bridges:
        bridge.client.__exit__(None, None, None)
        bridge.queue.close()


def proof(preset: str, body: bytes) -> tuple[str, dict[str, str]]:
    """What follows the sender in its address, and the headers, as the sender proves who it is."""
    digest = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    match preset:
        case "pagerduty":
            return "", {"X-PagerDuty-Signature": f"v1={digest}"}
        case "sentry":
            return "", {"Sentry-Hook-Signature": digest}
        case "sns" | "azure":
            return f"/{SECRET}", {}
        case "google-cloud":
            return f"?auth_token={SECRET}", {}
        case "new-relic":
            return "", {"Authorization": "Basic " + base64.b64encode(f"perennial:{SECRET}".encode()).decode()}
    return "", {"Authorization": f"Bearer {SECRET}"}


def test_every_sample_becomes_one_run_and_its_repetition_none(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge(*dict.fromkeys(sample.preset for sample in SAMPLES))

    def post(sample: Sample, document: Any, **headers: str) -> Any:
        body = json.dumps(document).encode()
        path, proven = proof(sample.preset, body)
        return bridge.client.post(
            f"/alerts/{sample.preset}{path}", content=body, headers={**sample.headers, **proven, **headers}
        )

    expected: set[tuple[str, str]] = set()
    for sample in SAMPLES:
        first = post(sample, sample.body)
        assert (first.status_code, first.json()["faults"]) == (202 if first.json()["accepted"] else 200, []), sample.title
        again = post(sample, sample.body)
        assert (again.status_code, again.json()["repeated"]) == (200, 1), sample.title
        over = post(sample, sample.changed(sample.over))
        assert (over.status_code, over.json()["resolved"]) == (200, 1), sample.title
        assert "starts nothing" in over.json()["notes"][0]
        stranger = bridge.client.post(f"/alerts/{sample.preset}", json=sample.body, headers=sample.headers)
        assert stranger.status_code == 401, sample.title
        assert "thumbs" not in stranger.text.lower()
        expected.add((sample.preset, sample.name))
    wait_until(lambda: bridge.queue.backlog().num_waiting == 0)
    assert {(alert.sender, alert.name) for alert in bridge.runs.values()} == expected
    metrics = bridge.client.get("/metrics").text
    assert 'perennial_alert_bridge_alerts_total{outcome="ignored"} 0.0' in metrics
    assert 'perennial_alert_bridge_requests_total{code="401"}' in metrics


def test_two_senders_may_use_one_key(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge("datadog", {"preset": "datadog", "sender": "datadog-eu"})
    body = next(sample.body for sample in SAMPLES if sample.preset == "datadog")
    for sender in ("datadog", "datadog-eu"):
        answer = bridge.client.post(f"/alerts/{sender}", json=body, headers={"Authorization": f"Bearer {SECRET}"})
        assert answer.json()["accepted"] == 1
    wait_until(lambda: len(bridge.runs) == 2)


def test_a_sender_without_a_rule_is_not_found_and_another_s_secret_does_not_help(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge("datadog")
    headers = {"Authorization": f"Bearer {SECRET}"}
    answer = bridge.client.post("/alerts/nagios", json={}, headers=headers)
    assert (answer.status_code, answer.json()["faults"][0]["where"]) == (404, "path")
    assert "datadog" not in answer.text
    assert bridge.client.post("/alerts", json={}, headers=headers).status_code == 401
    assert bridge.client.post(f"/alerts/datadog/{SECRET}", json={}).status_code == 401


def test_a_large_body_of_a_signed_sender_is_refused(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge("pagerduty", max_body_bytes=1024)
    answer = bridge.client.post("/alerts/pagerduty", content=b" " * 1025, headers={"X-PagerDuty-Signature": "v1=00"})
    assert answer.status_code == 413


def subscription(**changes: Any) -> dict[str, Any]:
    return {
        **{key: value for key, value in ENVELOPE.items() if key not in ("Subject", "UnsubscribeURL")},
        "Type": "SubscriptionConfirmation",
        "Token": "2336412f37",
        "Message": "You have chosen to subscribe to the topic. To confirm, visit the SubscribeURL.",
        "SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription&Token=2336412f37",
        **changes,
    }


def test_a_subscription_of_an_allowed_topic_is_confirmed_at_amazon_alone(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge({"preset": "sns", "require": f"TopicArn == '{ENVELOPE['TopicArn']}'"})

    def post(document: Any, token: str = SECRET) -> Any:
        return bridge.client.post(f"/alerts/sns/{token}", json=document)

    assert post(subscription(), "not-the-secret").status_code == 401
    assert post(subscription(TopicArn="arn:aws:sns:eu-central-1:1:other")).status_code == 422
    for url in (
        "http://sns.eu-central-1.amazonaws.com/",
        "https://sns.eu-central-1.amazonaws.com.example.com/",
        "https://example.com/?x=sns.eu-central-1.amazonaws.com",
        "https://user@sns.eu-central-1.amazonaws.com/",
        "https://sns.eu-central-1.amazonaws.com:8443/",
        "https://169.254.169.254/latest",
        "file:///etc/passwd",
        7,
    ):
        answer = post(subscription(SubscribeURL=url))
        assert (answer.status_code, answer.json()["faults"][0]["where"]) == (422, "body.SubscribeURL")
    assert bridge.visited == []
    answer = post(subscription())
    assert (answer.status_code, bridge.visited) == (200, [subscription()["SubscribeURL"]])
    assert "confirmed" in answer.json()["notes"][0]
    bridge.answers = False
    assert post(subscription()).status_code == 503
    assert post(subscription(Type="UnsubscribeConfirmation")).status_code == 200
    assert bridge.runs == {}


@pytest.fixture(scope="module")
def signing() -> tuple[rsa.RSAPrivateKey, bytes]:
    """A key, and a certificate of it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
    )
    return key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def signed(key: rsa.RSAPrivateKey, message: dict[str, Any], version: str = "2") -> dict[str, Any]:
    digest = hashes.SHA256() if version == "2" else hashes.SHA1()
    message = {**message, "SignatureVersion": version}
    signature = key.sign(_string_to_sign(message), padding.PKCS1v15(), digest)
    return {**message, "Signature": base64.b64encode(signature).decode()}


def test_the_signature_of_sns_is_verified_without_fetching_anything(
    make_bridge: Callable[..., Bridge], tmp_path: Path, signing: tuple[rsa.RSAPrivateKey, bytes]
) -> None:
    key, certificate = signing
    (tmp_path / "sns.pem").write_bytes(certificate)
    auth = {"kind": "sns", "certificates": [str(tmp_path / "sns.pem")], "tolerance_seconds": 3600}
    bridge = make_bridge({"preset": "sns", "auth": auth})
    now = f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%S.000Z}"

    def post(message: dict[str, Any]) -> int:
        return int(
            bridge.client.post("/alerts/sns", json=message, headers={"x-amz-sns-message-type": "Notification"}).status_code
        )

    for version in ("1", "2"):
        message = signed(key, {**ENVELOPE, "Timestamp": now}, version)
        assert post(message) in (200, 202)
        assert post({**message, "Message": message["Message"].replace("desk", "bank")}) == 401
        assert post({**message, "Subject": "another"}) == 401
    assert post(signed(key, {**ENVELOPE, "Timestamp": "2026-01-01T00:00:00.000Z"})) == 401, "replayed later"
    assert (
        post(signed(rsa.generate_private_key(public_exponent=65537, key_size=2048), {**ENVELOPE, "Timestamp": now})) == 401
    )
    assert post({**ENVELOPE, "Timestamp": now}) == 401
    assert bridge.client.post("/alerts/sns", json=message).status_code == 401, "no header of SNS: its body is not read"
    body = json.dumps(message).encode()
    assert has_sns_signature(body, [certificate], time.time(), 3600)
    assert not has_sns_signature(body, [certificate], time.time() + 3 * 86_400, 10 * 86_400), "an expired certificate"
    for odd in (b"", b"[]", b"{}", b'{"Type": "Notification"}'):
        assert not has_sns_signature(odd, [certificate], time.time(), 3600)


def test_a_message_that_another_implementation_signed_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        client = boto3.client("sns", region_name="eu-central-1")
        topic = client.create_topic(Name="model-alarms")["TopicArn"]
        client.subscribe(TopicArn=topic, Protocol="https", Endpoint="https://example.com/alerts/sns")
        backend = sns_backends[DEFAULT_ACCOUNT_ID]["eu-central-1"]
        (subscription,) = backend.subscriptions.values()
        message = subscription.get_post_data(ENVELOPE["Message"], "22b80b92", None)
        (certificate,) = backend._message_public_keys.values()
    body, now = json.dumps(message).encode(), time.time() + 1
    assert has_sns_signature(body, [certificate], now, 3600)
    assert not has_sns_signature(body.replace(b"ALARM", b"alarm"), [certificate], now, 3600)


def test_an_origin_of_cloudevents_is_permitted_where_a_rule_takes_them(make_bridge: Callable[..., Bridge]) -> None:
    bridge = make_bridge("cloudevents", "datadog")
    headers = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    answer = bridge.client.options("/alerts/cloudevents", headers=headers)
    assert (answer.status_code, answer.headers["WebHook-Allowed-Origin"]) == (200, "eventgrid.azure.net")
    assert answer.headers["WebHook-Allowed-Rate"] == "120"
    assert bridge.client.options("/alerts/cloudevents").status_code == 400
    assert bridge.client.options("/alerts/datadog", headers=headers).status_code == 404
