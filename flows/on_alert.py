"""An alert becomes a retrain, if the model's policy says so: the same DAG, on the rows up to the alerted window."""

from __future__ import annotations

from prefect import flow

from flows.config import RetrainConfig, sent_to_prefect
from flows.gpu import cancel_children
from flows.naming import name_when_due
from flows.retrain import retrain
from tasks import alerts, ingest
from tasks.contracts import Alert, AlertOutcome
from tasks.stage import CONTRACTS

_DEFAULT_POLICY = alerts.AlertPolicy()


@flow(
    name="retrain-on-alert",
    flow_run_name=name_when_due("alert"),
    persist_result=True,
    result_serializer=CONTRACTS,
    on_cancellation=[cancel_children],
    on_crashed=[cancel_children],
)
def retrain_on_alert(config: RetrainConfig, alert: Alert, policy: alerts.AlertPolicy = _DEFAULT_POLICY) -> AlertOutcome:
    """The decision on an alert and, where it is yes, the retrain's outcome. "No" is a normal, explained end.

    Args:
        config: The whole configuration of the retrain, as the quarterly run has it.
        alert: What fired; the alert bridge fills it in.
        policy: When an alert becomes a retrain.
    """
    config = sent_to_prefect(config)
    history = alerts.read_history(config.name, alert, policy)
    new_rows = ingest.count_new_rows(config.examples, history.learned_until, alert.window_end)
    decision = alerts.decide_retrain(alert, config.name, history, new_rows, policy)
    if not decision.retrain:
        return AlertOutcome(alert=alert, decision=decision)
    outcome = retrain(config.within(decision.created_after, decision.created_before))
    return AlertOutcome(alert=alert, decision=decision, outcome=outcome)
