"""Rules map what senders send to alerts: presets on samples of public formats, rules of one's own, and what is refused."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flows.support.config import settings_of
from tasks.alerts import BridgeConfig
from tasks.alerts.accept import AcceptRule, read_presets, rule_of
from tasks.alerts.expressions import Received
from tasks.alerts.payloads import Parsed, Served, parse_alerts, parse_moment
from tasks.core.errors import ConfigError
from tests.support.alert_samples import (
    AZURE,
    BINARY,
    CLOUD_EVENT,
    ENVELOPE,
    EVIDENTLY,
    FIRED,
    GOOGLE,
    MS,
    PROMETHEUS,
    SAMPLES,
    SECONDS,
    Sample,
)

NOW = FIRED + timedelta(minutes=1)


def parse(rule: AcceptRule, body: Any, models: tuple[str, ...] = ("desk", "bank"), **request: Any) -> Parsed:
    received = Received(body if isinstance(body, bytes) else json.dumps(body).encode(), NOW, **request)
    return parse_alerts(received, rule, Served(models, timedelta(hours=24)))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.title)
def test_a_preset_reads_its_sender_and_starts_nothing_for_what_is_over(sample: Sample) -> None:
    rule = rule_of(sample.preset)
    parsed = parse(rule, sample.body, headers=sample.headers)
    assert parsed.faults == ()
    (alert,) = parsed.alerts
    assert (alert.sender, alert.model, alert.name) == (sample.preset, "desk", sample.name)
    assert (alert.signal, alert.starts_at, alert.window_end) == (sample.signal, FIRED, FIRED)
    assert sample.key is None or alert.fingerprint == sample.key
    assert "Ada" not in alert.model_dump_json(), "no text but names is kept"
    again = parse(rule, sample.body, headers=sample.headers)
    assert again.alerts[0].fingerprint == alert.fingerprint, "a repeated delivery is the same alert"
    over = parse(rule, sample.changed(sample.over), headers=sample.headers)
    assert (over.alerts, over.num_resolved, over.faults) == ((), 1, ())
    assert "resolved, so it starts nothing" in over.notes[0]
    if sample.nothing is not None:
        nothing = parse(rule, sample.changed(sample.nothing), headers=sample.headers)
        assert (nothing.alerts, nothing.num_ignored, nothing.faults) == ((), 1, ())


def test_every_preset_has_a_sample() -> None:
    assert set(read_presets()) == {sample.preset for sample in SAMPLES} | {"json"}


@pytest.mark.parametrize("preset", [name for name in read_presets() if name != "json"])
def test_what_a_preset_does_not_fit_is_refused_with_place_kind_and_expectation(preset: str) -> None:
    secret = "Ada Lovelace"
    for body in ({secret: secret}, [secret], {"alerts": [{secret: secret}]}, {"event": {"event_type": secret}}, secret, 7):
        parsed = parse(rule_of(preset), body)
        assert parsed.alerts == ()
        assert parsed.faults
        assert all(fault.where and fault.found and fault.expected for fault in parsed.faults)
        assert "Ada" not in repr(parsed)


# Three senders without a preset, by rules as a user writes them.
ZABBIX = {
    "sender": "zabbix",
    "auth": {"kind": "header", "header": "X-Zabbix-Token"},
    "name": "event_name",
    "model": "label(json(event_tags), 'model')",
    "signal": "label(json(event_tags), 'signal')",
    "state": "event_value",
    "firing": ["1"],
    "resolved": ["0"],
    "time": "join(' ', [event_date, event_time])",
    "time_format": "%Y.%m.%d %H:%M:%S",
    "timezone": "Europe/Berlin",
    "key": "event_id",
}
ZABBIX_BODY = {
    "event_name": "Thumbs down",
    "event_value": "1",
    "event_id": "4711",
    "event_date": "2026.05.01",
    "event_time": "08:00:00",
    "event_tags": '[{"tag":"model","value":"desk"},{"tag":"signal","value":"feedback"}]',
}
HONEYCOMB = {
    "sender": "honeycomb",
    "auth": {"kind": "header", "header": "X-Honeycomb-Webhook-Token"},
    "name": "name",
    "models": {"assistant traces": "desk"},
    "model": "capture(trigger_url, 'datasets/([^/]+)/')",
    "state": "status",
    "firing": ["TRIGGERED"],
    "resolved": ["OK"],
    "key": "id",
}
HONEYCOMB_BODY = {
    "version": "v0.1.0",
    "id": "abdcefg",
    "name": "Thumbs down",
    "trigger_url": "https://ui.honeycomb.io/us/datasets/assistant traces/triggers/abdcefg",
    "status": "TRIGGERED",
    "result_groups": [{"Group": {"user": "Ada"}, "Result": 5}],
}
SPLUNK = {
    "sender": "splunk",
    "auth": {"kind": "path"},
    "name": "search_name || sid",
    "model": "result.model",
    "signal": "result.signal",
    "time": "result._time",
    "key": "[search_name, result.model]",
}
SPLUNK_BODY = {
    "sid": "scheduler_admin_search_W2_at_14232356_132",
    "search_name": "Thumbs down",
    "result": {"_time": f"{SECONDS}.000", "model": "desk", "count": "8"},
    "results_link": "http://splunk:8000/app/search/@go?sid=scheduler_admin",
    "owner": "admin",
    "app": "search",
}
KIBANA = {
    "sender": "kibana",
    "auth": {"kind": "basic", "user": "kibana"},
    "each": "alerts.active[] || alerts.recovered[]",
    "name": "body().rule.name",
    "model": "label(body().rule.tags, 'model')",
    "state": "actionGroup",
    "firing": ["threshold met"],
    "resolved": ["recovered"],
    "time": "start",
    "key": "[body().rule.id, id]",
}
KIBANA_BODY = {
    "rule": {"id": "r1", "name": "Thumbs down", "tags": ["llm", "model=desk"]},
    "alerts": {
        "active": [
            {"id": "a", "actionGroup": "threshold met", "start": "2026-05-01T06:00:00.000Z"},
            {"id": "b", "actionGroup": "threshold met", "start": "2026-05-01T06:00:00.000Z"},
        ]
    },
}


@pytest.mark.parametrize(
    ("settings", "body", "count"),
    [(ZABBIX, ZABBIX_BODY, 1), (HONEYCOMB, HONEYCOMB_BODY, 1), (SPLUNK, SPLUNK_BODY, 1), (KIBANA, KIBANA_BODY, 2)],
)
def test_a_rule_of_ones_own_reads_another_sender(settings: dict[str, Any], body: Any, count: int) -> None:
    rule = AcceptRule.model_validate(settings)
    parsed = parse(rule, body)
    assert parsed.faults == ()
    assert [(alert.model, alert.name, alert.sender) for alert in parsed.alerts] == [
        ("desk", "Thumbs down", settings["sender"])
    ] * count
    assert len({alert.fingerprint for alert in parsed.alerts}) == count
    expected = NOW if settings is HONEYCOMB else FIRED
    assert {alert.starts_at for alert in parsed.alerts} == {expected}


def test_a_rule_replaces_what_it_states_and_keeps_the_rest_of_its_preset() -> None:
    rule = AcceptRule.model_validate({"preset": "datadog", "sender": "datadog-eu", "model": "'bank'"})
    (alert,) = parse(rule, SAMPLES[2].body).alerts
    assert (alert.sender, alert.model, alert.name) == ("datadog-eu", "bank", "Thumbs down on desk")


def test_the_model_may_stand_in_the_address_and_a_hint_is_no_model() -> None:
    sample = next(each for each in SAMPLES if each.preset == "pagerduty")
    body = sample.changed((("event.data.service.summary", "Payments"),))
    assert parse(rule_of("pagerduty"), body).faults[0].found == "no model"
    assert parse(rule_of("pagerduty"), body, query={"model": "bank"}).alerts[0].model == "bank"
    assert parse(rule_of("pagerduty"), body, ("desk",)).alerts[0].model == "desk", "the only model there is"
    named = sample.changed((("event.data.service.summary", "DESK"),))
    assert parse(rule_of("pagerduty"), named).alerts[0].model == "desk", "written in capitals"
    titled = sample.changed((("event.data.title", "Model: worse, model: bank"), ("event.data.service.summary", "Payments")))
    assert parse(rule_of("pagerduty"), titled, ("desk",)).alerts[0].model == "desk", "a title is text, not a label"
    fields = [{"name": "model", "value": "other"}]
    labelled = sample.changed((("event.data.custom_fields", fields),))
    assert parse(rule_of("pagerduty"), labelled, ("desk",)).faults[0].found == "a model that is not served"


def test_several_alerts_of_one_body_each_count() -> None:
    tests = [{**EVIDENTLY["tests"][0], "name": name, "status": status} for name, status in  # type: ignore[index]
             (("a", "FAIL"), ("b", "SUCCESS"), ("c", "FAIL"), ("d", "odd"))]  # fmt: skip
    parsed = parse(rule_of("evidently"), {**EVIDENTLY, "tests": tests})
    assert ([alert.name for alert in parsed.alerts], parsed.num_resolved, parsed.num_invalid) == (["a", "c"], 1, 1)
    assert parsed.faults[0].where == "tests.3.status"
    batch = parse(rule_of("cloudevents"), [CLOUD_EVENT, {**CLOUD_EVENT, "id": "B"}])
    assert len({alert.fingerprint for alert in batch.alerts}) == 2


# Other forms of the same senders, as their documentation shows them too.
DRIFT = {"metric": "DatasetDriftMetric", "result": {"dataset_drift": True, "drift_share": 0.5}}
PUSHED = {"message": {"data": base64.b64encode(json.dumps(GOOGLE).encode()).decode(), "messageId": "1"}, "subscription": "s"}
COMPOSITE = {
    "AlarmName": "desk is worse",
    "AlarmDescription": "model=desk",
    "AlarmRule": "ALARM(thumbs-down)",
    "NewStateValue": "ALARM",
    "StateChangeTime": "2026-05-01T06:00:00.000+0000",
    "AlarmArn": "arn:aws:cloudwatch:eu-central-1:1:alarm:desk",
}
METRICS = [
    {"Expression": "a / b", "Id": "e"},
    {"Id": "a", "MetricStat": {"Metric": {"Dimensions": [{"name": "model", "value": "desk"}], "MetricName": "Down"}}},
]
PLAIN_ALARM = {**COMPOSITE, "AlarmDescription": None}
ATTRIBUTES = {"model": {"Type": "String", "Value": "desk"}}


@pytest.mark.parametrize(
    ("preset", "body", "headers", "name"),
    [
        ("evidently", {"timestamp": "2026-05-01 06:00:00", "model": "desk", "metrics": [DRIFT]}, {}, "DatasetDriftMetric"),
        ("google-cloud", PUSHED, {}, "thumbs-down"),
        ("sns", COMPOSITE, {}, "desk is worse"),
        ("sns", {**COMPOSITE, "AlarmDescription": "", "Trigger": {"Metrics": METRICS}}, {}, "desk is worse"),
        ("sns", {**ENVELOPE, "Message": json.dumps(PLAIN_ALARM), "MessageAttributes": ATTRIBUTES}, {}, "desk is worse"),
        (
            "arize",
            {"monitor_name": "Drift", "monitor_status": "Triggered", "model_name": "desk", "timestamp": MS},
            {},
            "Drift",
        ),
        ("datadog", {"title": "[Triggered] Down", "date_posix": SECONDS, "tags": ["model:desk"], "id": 7}, {}, "Down"),
        ("cloudevents", {**CLOUD_EVENT, "data": {"model": "desk"}}, {}, "com.example.drift.detected"),
        ("cloudevents", {"value": 1}, {**BINARY, "ce-subject": "desk"}, "com.example.drift.detected"),
    ],
)
def test_other_forms_of_a_sender_are_read_too(preset: str, body: Any, headers: dict[str, str], name: str) -> None:
    parsed = parse(rule_of(preset), body, headers=headers)
    assert parsed.faults == ()
    assert [(alert.model, alert.name, alert.starts_at) for alert in parsed.alerts] == [("desk", name, FIRED)]


def test_a_cloudevent_whose_type_says_that_it_is_over_starts_nothing() -> None:
    over = {**CLOUD_EVENT, "type": "com.example.drift.resolved", "data": {}}
    assert parse(rule_of("cloudevents"), over).num_resolved == 1
    assert parse(rule_of("cloudevents"), {**over, "type": "com.example.book.ordered"}).num_resolved == 0
    assert parse(rule_of("evidently"), {"metrics": [{**DRIFT, "result": {"dataset_drift": False}}]}).num_resolved == 1


def test_the_rules_in_the_documentation_load() -> None:
    page = (Path(__file__).parents[3] / "docs" / "operating.md").read_text()
    blocks = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "accept:" in block]
    configs = [BridgeConfig.model_validate({"deployments": {"desk": "a/b"}, **yaml.safe_load(block)}) for block in blocks]
    assert {rule.sender for config in configs for rule in config.accept} == {"pagerduty", "sns", "datadog", "zabbix"}


def test_a_body_that_does_not_fulfil_what_is_required_is_refused() -> None:
    parsed = parse(rule_of("azure"), {**AZURE, "schemaId": "other"})
    assert (parsed.alerts, parsed.faults[0].where) == ((), "body")
    assert "schemaId == 'azureMonitorCommonAlertSchema'" in parsed.faults[0].expected


def test_alertmanager_through_its_own_address_is_the_same_alert() -> None:
    body = {"alerts": [PROMETHEUS]}
    received = Received(json.dumps(body).encode(), NOW)
    usual = parse_alerts(received, None, Served(("desk",), timedelta(hours=24)))
    assert usual.alerts == parse(rule_of("alertmanager"), body).alerts


@pytest.mark.parametrize(
    ("value", "settings"),
    [
        ("2026-05-01T06:00:00Z", {}),
        ("2026-05-01T08:00:00.000000000+02:00", {}),
        ("Fri, 01 May 2026 06:00:00 GMT", {}),
        (SECONDS, {}),
        (float(SECONDS), {}),
        (str(SECONDS), {}),
        (MS, {}),
        (str(MS), {}),
        (MS * 1000, {}),
        (MS * 1_000_000, {}),
        ("2026-05-01 06:00:00", {"timezone": "UTC"}),
        ("01/05/2026 08:00", {"time_format": "%d/%m/%Y %H:%M", "timezone": "Europe/Berlin"}),
    ],
)
def test_a_time_is_read_in_every_usual_form(value: Any, settings: dict[str, str]) -> None:
    assert parse_moment(value, **settings) == FIRED


@pytest.mark.parametrize(
    "value", ["", "soon", "2026-05-01 06:00:00", True, None, [], {}, "9" * 40, float("nan"), 10**30, -5]
)
def test_what_is_no_time_is_none(value: Any) -> None:
    assert parse_moment(value) is None


@given(value=st.one_of(st.text(max_size=40), st.integers(), st.floats(), st.binary(), st.datetimes().map(str)))
def test_any_value_is_a_time_with_a_zone_or_none(value: Any) -> None:
    moment = parse_moment(value, "%Y", "Asia/Tokyo")
    assert moment is None or moment.tzinfo is not None


@pytest.mark.parametrize(
    ("accept", "where"),
    [
        (["nagios"], "no such preset"),
        ([{"preset": "datadog", "name": "alert_title ||"}], "accept.0.name: "),
        ([{"preset": "datadog", "name": "labels(tags, 'x')"}], "no such function"),
        ([{"preset": "datadog", "name": "capture(title, '(')"}], "no regular expression"),
        ([{"preset": "datadog", "firing": ["Recovered"]}], "stands twice"),
        ([{"preset": "datadog", "state": None}], "belong together"),
        ([{"preset": "datadog", "timezone": "Mars/Olympus"}], "no such zone"),
        ([{"preset": "datadog", "modela": "x"}], "did you mean `model`"),
        (["datadog", {"preset": "datadog"}], "two rules have one sender"),
        ([{"preset": "datadog", "models": {"a": "other"}}], "does not have"),
        ([{"preset": "pagerduty", "auth": {"kind": "hmac", "signed": "{timestamp}"}}], "must contain {body}"),
        ([{"preset": "pagerduty", "auth": {"kind": "hmac", "signed": "{timestamp}{body}"}}], "timestamp_header"),
        ([{"preset": "pagerduty", "auth": {"kind": "hmac", "timestamp_header": "X-T"}}], "needs {timestamp}"),
        ([{"preset": "sns", "auth": {"kind": "sns"}}], "certificates"),
    ],
)
def test_a_faulty_rule_is_named_when_the_bridge_starts(accept: list[Any], where: str) -> None:
    with pytest.raises(ConfigError) as raised:
        settings_of({"deployments": {"desk": "a/b"}, "accept": accept}, BridgeConfig, "bridge.yaml")
    assert where in raised.value.found


def test_a_rule_without_a_preset_needs_its_parts() -> None:
    with pytest.raises(ValidationError, match="auth"):
        AcceptRule.model_validate({"sender": "x", "name": "name"})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(data=st.data())
def test_a_sample_with_any_value_anywhere_is_an_alert_or_a_fault(data: st.DataObject) -> None:
    sample = data.draw(st.sampled_from(SAMPLES))
    body = json.loads(json.dumps(sample.body))
    node = body
    while True:  # walk to a place, and put any value there
        key: Any = data.draw(st.sampled_from(sorted(node) if isinstance(node, dict) else list(range(len(node)))))
        if isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
            node = node[key]
            continue
        node[key] = data.draw(JSON)
        break
    parsed = parse(rule_of(sample.preset), body, headers=sample.headers)
    assert parsed.alerts or parsed.faults or parsed.notes


def test_the_time_of_receipt_stands_for_a_time_that_no_one_names() -> None:
    body = {key: value for key, value in CLOUD_EVENT.items() if key != "time"}
    assert parse(rule_of("cloudevents"), body).alerts[0].starts_at == NOW
    assert datetime(2026, 5, 1, 6, 1, tzinfo=UTC) == NOW
