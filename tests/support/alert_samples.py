"""Requests of senders, in the forms that their public documentation shows; the models and names are our own.

Each sample is a body, its headers, and what it must become. ``FIRED`` is the time at which every one of them began to fire.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

FIRED = datetime(2026, 5, 1, 6, tzinfo=UTC)
SECONDS, MS = 1_777_615_200, 1_777_615_200_000
ARN = "arn:aws:sns:eu-central-1:123456789012:model-alarms"


@dataclass(frozen=True)
class Sample:
    """A body of a sender, and what it becomes; ``over`` makes it a resolved one, ``nothing`` one that starts nothing."""

    preset: str
    body: Any
    name: str
    signal: str
    key: str | None
    over: tuple[tuple[str, Any], ...]
    nothing: tuple[tuple[str, Any], ...] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def title(self) -> str:
        return f"{self.preset} {self.label}".strip()

    def changed(self, changes: tuple[tuple[str, Any], ...]) -> Any:
        """The body with other values at dotted places; a text that holds JSON is opened and closed again."""
        body = json.loads(json.dumps(self.body))
        for place, value in changes:
            _set(body, place.split("."), value)
        return body


def _set(node: Any, path: list[str], value: Any) -> None:
    step: Any = int(path[0]) if isinstance(node, list) else path[0]
    if len(path) == 1:
        node[step] = value
    elif isinstance(node[step], str):
        inner = json.loads(node[step])
        _set(inner, path[1:], value)
        node[step] = json.dumps(inner)
    else:
        _set(node[step], path[1:], value)


ALARM = {
    "AlarmName": "thumbs-down-rate",
    "AlarmDescription": "Share of thumbs down, one hour",
    "AWSAccountId": "123456789012",
    "AlarmConfigurationUpdatedTimestamp": "2026-04-02T12:22:09.734+0000",
    "NewStateValue": "ALARM",
    "NewStateReason": "Threshold Crossed: 1 out of the last 1 datapoints [0.31] was greater than the threshold (0.2).",
    "StateChangeTime": "2026-05-01T06:00:00.000+0000",
    "Region": "EU (Frankfurt)",
    "AlarmArn": "arn:aws:cloudwatch:eu-central-1:123456789012:alarm:thumbs-down-rate",
    "OldStateValue": "OK",
    "Trigger": {
        "MetricName": "ThumbsDownRate",
        "Namespace": "Assistants",
        "Statistic": "AVERAGE",
        "Unit": None,
        "Dimensions": [{"value": "desk", "name": "model"}],
        "Period": 3600,
        "Threshold": 0.2,
    },
}
ENVELOPE = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": ARN,
    "Subject": 'ALARM: "thumbs-down-rate" in EU (Frankfurt)',
    "Message": json.dumps(ALARM),
    "Timestamp": "2026-05-01T06:00:01.000Z",
    "SignatureVersion": "1",
    "Signature": "EXAMPLE",
    "SigningCertURL": "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-0.pem",
    "UnsubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=Unsubscribe",
}
EVENT_BRIDGE = {
    "version": "0",
    "id": "c4c1c1c9-6542-e61b-6ef0-8c4d36933a92",
    "detail-type": "CloudWatch Alarm State Change",
    "source": "aws.cloudwatch",
    "account": "123456789012",
    "time": "2026-05-01T06:00:02Z",
    "region": "eu-central-1",
    "resources": ["arn:aws:cloudwatch:eu-central-1:123456789012:alarm:ServerCpuTooHigh"],
    "detail": {
        "alarmName": "thumbs-down-rate",
        "configuration": {
            "metrics": [
                {
                    "id": "30b6c6b2",
                    "metricStat": {
                        "metric": {"namespace": "Assistants", "name": "ThumbsDownRate", "dimensions": {"model": "desk"}},
                        "period": 300,
                        "stat": "Average",
                    },
                    "returnData": True,
                }
            ]
        },
        "previousState": {"timestamp": "2026-05-01T05:00:00.028+0000", "value": "OK"},
        "state": {"reason": "Threshold Crossed", "timestamp": "2026-05-01T06:00:00.000+0000", "value": "ALARM"},
    },
}
AZURE = {
    "schemaId": "azureMonitorCommonAlertSchema",
    "data": {
        "essentials": {
            "alertId": "/subscriptions/0000/providers/Microsoft.AlertsManagement/alerts/b9569717",
            "alertRule": "thumbs-down",
            "severity": "Sev3",
            "signalType": "Metric",
            "monitorCondition": "Fired",
            "monitoringService": "Platform",
            "alertTargetIDs": ["/subscriptions/0000/resourcegroups/llm/providers/microsoft.web/sites/desk"],
            "originAlertId": "3f2d4487_llm_microsoft.insights_metricAlerts_thumbs-down_-117781227",
            "firedDateTime": "2026-05-01T06:00:00.0000000Z",
            "description": "",
            "essentialsVersion": "1.0",
            "alertContextVersion": "1.0",
        },
        "alertContext": {
            "properties": None,
            "conditionType": "SingleResourceMultipleMetricCriteria",
            "condition": {
                "windowSize": "PT5M",
                "allOf": [
                    {
                        "metricName": "ThumbsDownRate",
                        "metricNamespace": "assistants",
                        "operator": "GreaterThan",
                        "threshold": "0.2",
                        "timeAggregation": "Average",
                        "dimensions": [{"name": "model", "value": "desk"}],
                        "metricValue": 0.31,
                    }
                ],
            },
        },
        "customProperties": None,
    },
}
GOOGLE = {
    "incident": {
        "incident_id": "0.opqiw61fsv7p",
        "scoping_project_id": "internal-project",
        "scoping_project_number": 12345,
        "url": "https://console.cloud.google.com/monitoring/alerting/incidents/0.opqiw61fsv7p",
        "started_at": SECONDS,
        "ended_at": None,
        "state": "open",
        "summary": "thumbs down above 0.2",
        "observed_value": "0.31",
        "resource": {"type": "generic_task", "labels": {"project_id": "internal-project"}},
        "resource_type_display_name": "Generic Task",
        "metric": {"type": "custom.googleapis.com/thumbs_down", "displayName": "Thumbs down", "labels": {"model": "desk"}},
        "metadata": {"system_labels": {}, "user_labels": {}},
        "policy_name": "thumbs-down",
        "policy_user_labels": {},
        "condition_name": "rate above 0.2",
        "threshold_value": "0.2",
        "documentation": {"content": "TEST", "mime_type": "text/markdown"},
    },
    "version": "1.2",
}
PAGERDUTY = {
    "event": {
        "id": "01BZYIL05THJDFF2Y08X9SVMTU",
        "event_type": "incident.triggered",
        "resource_type": "incident",
        "occurred_at": "2026-05-01T06:00:00.000Z",
        "agent": {"id": "PJ0LVEB", "summary": "Ada Lovelace", "type": "user_reference"},
        "client": None,
        "data": {
            "id": "PFQZPSY",
            "type": "incident",
            "number": 9,
            "status": "triggered",
            "title": "Thumbs down on desk",
            "service": {"id": "PA2P440", "summary": "desk", "type": "service_reference"},
            "assignees": [{"id": "PJ0LVEB", "summary": "Ada Lovelace", "type": "user_reference"}],
            "teams": [],
            "priority": None,
            "urgency": "high",
            "resolve_reason": None,
        },
    }
}
OPSGENIE = {
    "action": "Create",
    "alert": {
        "alertId": "ec03dad6-62c8-4c94-b38b-d88f398e900f",
        "message": "Thumbs down",
        "tags": ["vip", "model:desk", "signal:feedback"],
        "tinyId": "2",
        "source": "test@example.com",
        "entity": "Server",
        "alias": "alert-alias",
        "createdAt": MS,
        "updatedAt": MS * 1_000_000 + 110,
        "username": "test@example.com",
        "teams": [],
        "priority": "P3",
    },
    "source": {"name": "web", "type": "API"},
    "integrationId": "daca46c6",
    "integrationName": "Webhook",
}
DATADOG = {
    "alert_title": "Thumbs down on desk",
    "alert_transition": "Triggered",
    "alert_id": "1234",
    "alert_cycle_key": "6924718768",
    "alert_metric": "assistant.thumbs_down",
    "tags": "env:prod,model:desk,team:support",
    "date": str(MS),
}
DATADOG_DEFAULT = {
    "body": "%%% thumbs down %%%",
    "last_updated": str(MS + 1000),
    "event_type": "query_alert_monitor",
    "title": "[Triggered on {model:desk}] Thumbs down",
    "date": str(MS),
    "org": {"id": "1234", "name": "Us"},
    "id": "5687412",
    "tags": "model:desk",
}
NEW_RELIC = {
    "id": "c5faa7e6-7b54-402d-af79-f99601e0278c",
    "issueUrl": "https://radar-api.service.newrelic.com/accounts/1/issues/c5faa7e6?notifier=WEBHOOK",
    "title": "desk query result is > 0.2 for 1 minutes on 'Thumbs down'",
    "priority": "CRITICAL",
    "impactedEntities": ["desk"],
    "totalIncidents": 1,
    "state": "ACTIVATED",
    "trigger": "STATE_CHANGE",
    "isCorrelated": False,
    "createdAt": MS,
    "updatedAt": MS + 5000,
    "sources": ["newrelic"],
    "alertPolicyNames": ["Assistants"],
    "alertConditionNames": ["Thumbs down"],
    "workflowName": "perennial",
}
NEW_RELIC_CHANNEL = {
    "account_id": 1,
    "condition_name": "Thumbs down",
    "current_state": "open",
    "event_type": "INCIDENT",
    "incident_id": 42,
    "policy_name": "Assistants",
    "severity": "CRITICAL",
    "targets": [{"id": "12345", "name": "desk", "labels": {"model": "desk", "signal": "feedback"}, "type": "Query"}],
    "timestamp": MS,
}
SENTRY_METRIC = {
    "action": "critical",
    "actor": {"id": "sentry", "name": "Sentry", "type": "application"},
    "data": {
        "description_text": "1000 events in the last 10 minutes",
        "description_title": "Critical: Thumbs down",
        "metric_alert": {
            "alert_rule": {
                "aggregate": "count()",
                "dataset": "events",
                "id": "7",
                "name": "Thumbs down",
                "projects": ["desk"],
                "query": "level:error",
                "time_window": 10,
                "triggers": [],
            },
            "date_closed": None,
            "date_created": "2026-05-01T06:00:00.000000Z",
            "date_detected": "2026-05-01T06:00:00.000000Z",
            "date_started": "2026-05-01T06:00:00.000000Z",
            "id": "4",
            "identifier": "123",
            "projects": ["desk"],
            "status": 20,
            "title": "Thumbs down",
        },
        "web_url": "https://sentry.io/organizations/us/alerts/123/",
    },
    "installation": {"uuid": "a8e5d37a-696c-4c54-adb5-b3f28d64c7de"},
}
SENTRY_ISSUE = {
    "action": "triggered",
    "actor": {"id": "sentry", "name": "Sentry", "type": "application"},
    "data": {
        "event": {
            "datetime": "2026-05-01T06:00:00.000000Z",
            "event_id": "e4874d664c3540c1a32eab185f12c5ab",
            "issue_id": "1170820242",
            "tags": [["browser", "Chrome 75"], ["model", "desk"]],
            "title": "Ada Lovelace could not be found",
            "timestamp": SECONDS + 0.0,
        },
        "triggered_rule": "Replies that users report",
    },
    "installation": {"uuid": "a8e5d37a"},
}
EVIDENTLY = {
    "version": "0.7.14",
    "timestamp": "2026-05-01 06:00:00.000000",
    "metadata": {"model": "desk"},
    "tests": [
        {
            "id": "4d1f",
            "name": "Share of Drifted Columns",
            "description": "Drifted columns share is 0.6",
            "metric_config": {"metric_id": "6f2a", "params": {"type": "DriftedColumnsCount"}},
            "status": "FAIL",
        }
    ],
}
ARIZE = {
    "event": "monitor.triggered",
    "timestamp": "2026-05-01T06:00:00Z",
    "data": {
        "monitor": {"id": "TW9uaXRvcjox", "name": "Embedding drift", "category": "drift"},
        "model": {"id": "TW9kZWw6MQ==", "name": "desk"},
        "status": "triggered",
    },
}
CLOUD_EVENT = {
    "specversion": "1.0",
    "type": "com.example.drift.detected",
    "source": "/monitors/drift",
    "id": "A234-1234-1234",
    "time": "2026-05-01T06:00:00Z",
    "subject": "desk",
    "datacontenttype": "application/json",
    "data": {"name": "Drift", "signal": "drift", "state": "firing", "value": 0.4},
}
BINARY = {
    "ce-specversion": "1.0",
    "ce-type": "com.example.drift.detected",
    "ce-source": "/monitors/drift",
    "ce-id": "A234-1234-1234",
    "ce-time": "2026-05-01T06:00:00Z",
}
PROMETHEUS = {
    "status": "firing",
    "labels": {"alertname": "ThumbsDown", "model": "desk", "signal": "feedback"},
    "annotations": {"summary": "Ada Lovelace"},
    "startsAt": "2026-05-01T06:00:00Z",
    "endsAt": "0001-01-01T00:00:00Z",
    "fingerprint": "9cd5ee1ab2d81a31",
}

SAMPLES = (
    Sample(
        "alertmanager",
        {"version": "4", "groupKey": "{}", "status": "firing", "alerts": [PROMETHEUS]},
        "ThumbsDown",
        "feedback",
        "9cd5ee1ab2d81a31",
        (("alerts.0.status", "resolved"),),
    ),
    Sample(
        "grafana",
        {"receiver": "perennial", "orgId": 1, "state": "alerting", "alerts": [PROMETHEUS]},
        "ThumbsDown",
        "feedback",
        "9cd5ee1ab2d81a31",
        (("alerts.0.status", "resolved"),),
        (("alerts.0.labels", {"alertname": "TestAlert", "instance": "Grafana"}),),
    ),
    Sample(
        "datadog",
        DATADOG,
        "Thumbs down on desk",
        "assistant.thumbs_down",
        "6924718768",
        (("alert_transition", "Recovered"),),
        (("alert_transition", "No Data"),),
    ),
    Sample(
        "datadog",
        DATADOG_DEFAULT,
        "Thumbs down",
        "Thumbs down",
        "5687412",
        (("title", "[Recovered on {model:desk}] Thumbs down"),),
        (("title", "[No Data on {model:desk}] Thumbs down"),),
        label="default",
    ),
    Sample(
        "pagerduty",
        PAGERDUTY,
        "Thumbs down on desk",
        "Thumbs down on desk",
        "PFQZPSY",
        (("event.event_type", "incident.resolved"),),
        (("event.event_type", "pagey.ping"), ("event.data", {"message": "Hello from your friend Pagey!", "type": "ping"})),
    ),
    Sample(
        "opsgenie",
        OPSGENIE,
        "Thumbs down",
        "feedback",
        "ec03dad6-62c8-4c94-b38b-d88f398e900f",
        (("action", "Close"),),
        (("action", "AddNote"),),
    ),
    Sample(
        "sns",
        ENVELOPE,
        "thumbs-down-rate",
        "ThumbsDownRate",
        ALARM["AlarmArn"],  # type: ignore[arg-type]
        (("Message.NewStateValue", "OK"),),
        (("Message.NewStateValue", "INSUFFICIENT_DATA"),),
    ),
    Sample(
        "sns",
        ALARM,
        "thumbs-down-rate",
        "ThumbsDownRate",
        ALARM["AlarmArn"],  # type: ignore[arg-type]
        (("NewStateValue", "OK"),),
        label="raw",
        headers={"x-amz-sns-rawdelivery": "true"},
    ),
    Sample(
        "sns",
        EVENT_BRIDGE,
        "thumbs-down-rate",
        "ThumbsDownRate",
        EVENT_BRIDGE["resources"][0],  # type: ignore[index]
        (("detail.state.value", "OK"),),
        label="EventBridge",
    ),
    Sample("azure", AZURE, "thumbs-down", "ThumbsDownRate", None, (("data.essentials.monitorCondition", "Resolved"),)),
    Sample(
        "google-cloud",
        GOOGLE,
        "thumbs-down",
        "Thumbs down",
        "0.opqiw61fsv7p",
        (("incident.state", "closed"),),
        (("version", "test"), ("incident.state", "OPEN"), ("incident.started_at", 0)),
    ),
    Sample("cloudevents", CLOUD_EVENT, "Drift", "drift", None, (("data.state", "resolved"),), (("data.state", "test"),)),
    Sample(
        "cloudevents",
        {"name": "Drift", "model": "desk", "signal": "drift", "state": "firing"},
        "Drift",
        "drift",
        None,
        (("state", "ok"),),
        headers=BINARY,
        label="binary",
    ),
    Sample(
        "new-relic",
        NEW_RELIC,
        "Thumbs down",
        "Thumbs down",
        "c5faa7e6-7b54-402d-af79-f99601e0278c",
        (("state", "CLOSED"),),
        (("state", "ACKNOWLEDGED"),),
    ),
    Sample(
        "new-relic",
        NEW_RELIC_CHANNEL,
        "Thumbs down",
        "feedback",
        "42",
        (("current_state", "closed"),),
        (("current_state", "test"),),
        label="channel",
    ),
    Sample("sentry", SENTRY_METRIC, "Thumbs down", "count()", "123", (("action", "resolved"),)),
    Sample(
        "sentry",
        SENTRY_ISSUE,
        "Replies that users report",
        "Replies that users report",
        "1170820242",
        (("action", "resolved"),),
        (("action", "created"),),
        label="issue alert",
    ),
    Sample(
        "evidently",
        EVIDENTLY,
        "Share of Drifted Columns",
        "DriftedColumnsCount",
        None,
        (("tests.0.status", "SUCCESS"),),
        (("tests.0.status", "SKIPPED"),),
    ),
    Sample(
        "arize",
        ARIZE,
        "Embedding drift",
        "drift",
        None,
        (("data.status", "healthy"),),
        (("data.status", "no_data"),),
    ),
)
