"""Starts a retrain for an alert if the model's policy allows it: the same DAG, on the rows up to the alerted window."""

from __future__ import annotations

import re
from datetime import UTC

from prefect import flow, runtime, tags

from flows.retrain import retrain
from flows.support.alert_runs import origin_tags
from flows.support.config import RetrainConfig, sent_to_prefect
from flows.support.gpu_pool import cancel_children
from flows.support.requests import RunRequest
from flows.support.run_names import scheduled_run_name
from tasks import alerts, ingest
from tasks.contracts.alerts import Alert, AlertOutcome
from tasks.core.results import CONTRACTS
from tasks.core.typed_text import cut

_DEFAULT_POLICY = alerts.AlertPolicy()
_REASON_CHARACTERS = 500


def _run_name() -> str:
    """``<model>-alert-<signal>-<time>-…``."""
    signal = re.sub(r"[^A-Za-z0-9]+", "-", runtime.flow_run.parameters["alert"].signal).strip("-")[:40]
    return scheduled_run_name(f"alert-{signal}" if signal else "alert")()


def reason_of_alert(alert: Alert) -> str:
    """The recorded reason of the retrain: alert, signal, time, sender and window."""
    began = f"{alert.starts_at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    start, end = (moment.astimezone(UTC) for moment in (alert.window_start, alert.window_end))
    window = f"{start:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} UTC"
    sent = f"sent by {alert.sender} as {alert.fingerprint}"
    return cut(f"Alert {alert.name} on {alert.signal} since {began}, {sent}, about {window}.", _REASON_CHARACTERS)


@flow(
    name="retrain-on-alert",
    flow_run_name=_run_name,
    persist_result=True,
    result_serializer=CONTRACTS,
    on_cancellation=[cancel_children],
    on_crashed=[cancel_children],
)
def retrain_on_alert(config: RetrainConfig, alert: Alert, policy: alerts.AlertPolicy = _DEFAULT_POLICY) -> AlertOutcome:
    """The decision on an alert and, if it is accepted, the retrain's outcome. A rejection is a normal, explained end.

    Args:
        config: The whole configuration of the retrain, as for the quarterly run.
        alert: The alert that fired; the alert bridge sends it.
        policy: When an alert becomes a retrain.
    """
    config = sent_to_prefect(config)
    history = alerts.read_history(config.name, alert, policy)
    new_rows = ingest.count_new_rows(config.examples, history.learned_until, alert.window_end)
    decision = alerts.decide_retrain(alert, config.name, history, new_rows, policy)
    if not decision.retrain:
        return AlertOutcome(alert=alert, decision=decision)
    with tags("alert", *origin_tags(alert)):
        window = config.within(decision.created_after, decision.created_before)
        outcome = retrain(window, RunRequest(reason=reason_of_alert(alert)))
    return AlertOutcome(alert=alert, decision=decision, outcome=outcome)
