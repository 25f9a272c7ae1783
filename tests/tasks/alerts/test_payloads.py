"""What senders send becomes alerts; what is wrong with it is named without being repeated."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.alerts.expressions import Received
from tasks.alerts.payloads import MAX_ALERTS, Parsed, Served, parse_alerts

NOW = datetime(2026, 5, 1, 7, tzinfo=UTC)
SECRET = "Ada Lovelace, ada@example.com"


def parse(document: Any, models: tuple[str, ...] = ("desk",)) -> Parsed:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_alerts(Received(body, NOW), None, Served(models, timedelta(hours=24)))


def webhook_alert(**changes: Any) -> dict[str, Any]:
    """As Alertmanager 0.25 and Grafana 11 send it, fields that are not read included."""
    return {
        "status": "firing",
        "labels": {"alertname": "ThumbsDownHigh", "model": "desk", "signal": "feedback", "severity": "page"},
        "annotations": {"summary": SECRET},
        "startsAt": "2026-05-01T06:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": "9cd5ee1ab2d81a31",
        **changes,
    }


def webhook(*alerts: Any, **fields: Any) -> dict[str, Any]:
    return {"version": "4", "groupKey": "{}", "status": "firing", "receiver": "perennial", "alerts": list(alerts), **fields}


@pytest.mark.parametrize(("fields", "sender"), [({}, "alertmanager"), ({"orgId": 1, "state": "alerting"}, "grafana")])
def test_a_webhook_becomes_an_alert_without_its_texts(fields: dict[str, Any], sender: str) -> None:
    parsed = parse(webhook(webhook_alert(), **fields))
    (alert,) = parsed.alerts
    assert (alert.sender, alert.model, alert.name, alert.signal) == (sender, "desk", "ThumbsDownHigh", "feedback")
    assert alert.fingerprint == "9cd5ee1ab2d81a31"
    assert (alert.window_start, alert.window_end) == (NOW - timedelta(hours=25), NOW - timedelta(hours=1))
    assert "Ada" not in alert.model_dump_json()


def test_an_alert_may_name_its_window() -> None:
    annotations = {"window_start": "2026-04-28T00:00:00Z", "window_end": "2026-04-29T00:00:00+00:00"}
    (alert,) = parse(webhook(webhook_alert(annotations=annotations))).alerts
    assert (alert.window_start.day, alert.window_end.day) == (28, 29)


def test_plain_json_is_one_alert_and_its_fingerprint_covers_its_fields() -> None:
    plain = {"name": "Drift", "signal": "drift", "starts_at": "2026-05-01T06:00:00Z"}
    (first,), (second,) = parse(plain).alerts, parse({**plain, "starts_at": "2026-05-01T06:30:00Z"}).alerts
    (other,) = parse({**plain, "name": "Other"}).alerts
    assert (first.sender, first.model) == ("json", "desk")
    assert first.fingerprint == second.fingerprint != other.fingerprint


def test_plain_json_has_no_other_fields() -> None:
    plain = {"name": "Drift", "starts_at": "2026-05-01T06:00:00Z", "windowstart": SECRET, SECRET: 1}
    assert {(fault.where, fault.expected) for fault in parse(plain).faults} == {
        ("body.windowstart", "no such field"),
        ("body.?", "no such field"),
    }


def test_resolved_alerts_are_counted_and_ignored() -> None:
    parsed = parse(webhook(webhook_alert(status="resolved"), webhook_alert(status="resolved", labels={})))
    assert (parsed.alerts, parsed.num_resolved, parsed.faults) == ((), 2, ())


def test_an_invalid_alert_does_not_affect_the_others() -> None:
    parsed = parse(webhook(webhook_alert(), {"status": SECRET}, 7, webhook_alert(fingerprint="other")))
    assert [alert.fingerprint for alert in parsed.alerts] == ["9cd5ee1ab2d81a31", "other"]
    assert {fault.where for fault in parsed.faults} == {
        "alerts.1.status",
        "alerts.1.labels.alertname",
        "alerts.1.startsAt",
        "alerts.2",
    }
    assert "Ada" not in repr(parsed.faults)


@pytest.mark.parametrize(
    ("changes", "where", "found"),
    [
        ({"startsAt": SECRET}, "startsAt", "a text of 29 characters"),
        ({"startsAt": "2026-05-01T06:00:00"}, "startsAt", "a text of 19 characters"),
        ({"startsAt": "0001-01-01T00:00:00Z"}, "startsAt", "a time out of range"),
        ({"startsAt": "2026-05-01T09:00:00Z"}, "startsAt", "a time out of range"),
        ({"labels": {"model": "desk"}}, "labels.alertname", "nothing in an object with 7 fields"),
        ({"labels": {"alertname": ["a", "b"]}}, "labels.alertname", "a list of 2"),
        ({"labels": {"alertname": "a", "model": SECRET}}, "model", "a model that is not served"),
        ({"annotations": {"window_end": "noon"}}, "annotations.window_end", "a text of 4 characters"),
        (
            {"annotations": {"window_start": "2026-05-01T06:30:00Z"}},
            "annotations.window_start",
            "a time not before the window's end",
        ),
    ],
)
def test_a_fault_names_place_and_kind_and_never_the_value(changes: dict[str, Any], where: str, found: str) -> None:
    parsed = parse(webhook(webhook_alert(**changes)))
    assert parsed.alerts == ()
    (fault,) = parsed.faults
    assert (fault.where, fault.found) == (f"alerts.0.{where}", found)
    assert fault.expected
    assert "Ada" not in repr(fault)


def test_without_a_model_an_alert_is_for_the_only_one_and_never_for_one_of_two() -> None:
    alert = webhook_alert(labels={"alertname": "a"})
    assert parse(webhook(alert)).alerts[0].model == "desk"
    assert parse(webhook(alert), ("desk", "bank")).faults[0].expected == "one of bank, desk"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b"\xff\xfe",
        b'"\\ud800"',
        b"[" * 100_000,
        b'{"alerts": []}',
        b'{"alerts": {}}',
        b"{}",
    ],
)
def test_an_invalid_body_is_a_fault(body: bytes) -> None:
    parsed = parse(body)
    assert parsed.alerts == ()
    assert parsed.faults


def test_too_many_alerts_are_rejected_together() -> None:
    parsed = parse(webhook(*[webhook_alert()] * (MAX_ALERTS + 1)))
    assert (parsed.alerts, parsed.faults[0].found) == ((), f"a list of {MAX_ALERTS + 1:,}")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TIMES = st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.isoformat())
ALMOST = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["firing", "resolved"]) | JSON,
        "labels": st.dictionaries(
            st.sampled_from(["alertname", "model", "signal", "window_start"]), TIMES | st.text() | JSON
        )
        | JSON,
        "annotations": st.dictionaries(st.sampled_from(["window_start", "window_end"]), TIMES | JSON) | JSON,
        "startsAt": TIMES | JSON,
        "starts_at": TIMES | JSON,
        "name": st.text() | JSON,
        "fingerprint": st.text("abc09", min_size=1) | JSON,
    },
)
DOCUMENTS = JSON | ALMOST | st.fixed_dictionaries({"alerts": st.lists(ALMOST | JSON, max_size=4) | JSON})


@given(document=DOCUMENTS)
def test_every_alert_of_any_body_is_counted(document: Any) -> None:
    parsed = parse(document)
    items = document["alerts"] if isinstance(document, dict) and isinstance(document.get("alerts"), list) else [document]
    places = [fault.where.split(".")[1] if fault.where.startswith("alerts.") else "0" for fault in parsed.faults]
    faulty = {place if place.isdecimal() else "0" for place in places}
    assert len(parsed.alerts) + parsed.num_resolved + len(faulty) == max(len(items), 1)


@given(body=st.binary(max_size=200))
def test_any_bytes_are_parsed_or_a_fault(body: bytes) -> None:
    parsed = parse(body)
    assert parsed.faults or parsed.alerts or parsed.num_resolved
