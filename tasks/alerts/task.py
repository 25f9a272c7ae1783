"""The evaluation of an alert as Prefect tasks. Both read Prefect's history and the clock, so neither is cached."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterExpectedStartTime
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import TaskRunContext
from prefect.events import emit_event

from tasks.alerts.config import AlertPolicy
from tasks.alerts.policy import decision_page, evaluate_alert
from tasks.contracts.alerts import Alert, AlertDecision, NewRows, RetrainHistory
from tasks.core.paging import every
from tasks.core.stage import stage, stage_progress
from tasks.core.timestamps import parse_timestamp

RETRAIN_FLOW = "retrain"
ALERT_FLOW = "retrain-on-alert"
_HORIZON_DAYS = 400.0
"""Older retrains do not count: this is longer than the longest cool-down (365 days)."""
_OPEN = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)
"""States of runs that are due: a scheduled one starts as soon as a worker is there."""
_ENDED = (StateType.COMPLETED, StateType.FAILED)
"""States of runs that ended by themselves. A crashed or cancelled run decides nothing and starts no cool-down."""


@stage(cached=False, unit="runs")
def read_history(model: str, alert: Alert, policy: AlertPolicy) -> RetrainHistory:
    """A model's past retrains on Prefect's server, however they were started, and the recent alerts about it."""
    now = dt.datetime.now(dt.UTC)
    since = now - dt.timedelta(hours=policy.signal_window_hours)
    with get_client(sync_client=True) as client:
        runs = _runs_of(client, RETRAIN_FLOW, now - dt.timedelta(days=_HORIZON_DAYS), now)
        retrains = [run for run in runs if _section(run, "config").get("name") == model]
        alerts = [_section(run, "alert") for run in _runs_of(client, ALERT_FLOW, since, now)]
    stage_progress().summarize(f"{len(retrains)} retrains of {model}")
    trained_until = [_trained_until(run) for run in retrains if run.state_type == StateType.COMPLETED]
    return RetrainHistory(
        open_runs=tuple(sorted(run.name for run in retrains if run.state_type in _OPEN)),
        last_ended=max((run.end_time for run in retrains if run.state_type in _ENDED and run.end_time), default=None),
        learned_until=max((moment for moment in trained_until if moment), default=None),
        signals=tuple(sorted({alert.signal} | {str(other["signal"]) for other in alerts if other.get("model") == model})),
    )


@stage(cached=False, unit="alerts", page=decision_page, title="Whether the alert becomes a retrain", key="alert-decision")
def decide_retrain(
    alert: Alert, model: str, history: RetrainHistory, new_rows: NewRows, policy: AlertPolicy
) -> AlertDecision:
    """Whether the alert becomes a retrain, with the reasons on the run's page and in Prefect's event feed."""
    decision = evaluate_alert(alert, model, history, new_rows, policy, dt.datetime.now(dt.UTC))
    verdict = "retrain" if decision.retrain else "no retrain"
    stage_progress().summarize(f"{verdict} of {model}: {' '.join(decision.reasons)}")
    if TaskRunContext.get():
        emit_event(
            event="perennial.alert.weighed",
            resource={"prefect.resource.id": f"perennial.model.{model}", "prefect.resource.name": model},
            payload={"retrain": decision.retrain, "reasons": list(decision.reasons), "fingerprint": alert.fingerprint},
        )
    return decision


def _runs_of(client: SyncPrefectClient, flow: str, since: dt.datetime, until: dt.datetime) -> Iterator[FlowRun]:
    """A flow's runs that were to start between two times, newest first, through all pages."""
    return every(
        lambda limit, offset: client.read_flow_runs(
            flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
            flow_run_filter=FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(after_=since, before_=until)),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=limit,
            offset=offset,
        )
    )


def _section(run: FlowRun, name: str) -> dict[str, Any]:
    """A parameter that is a mapping; empty where it is something else."""
    value = (run.parameters or {}).get(name)
    return value if isinstance(value, dict) else {}


def _trained_until(run: FlowRun) -> dt.datetime | None:
    """The end of the rows that a completed retrain read: its window's end, else the time it started."""
    examples = _section(run, "config").get("examples") or {}
    until = _section(run, "request").get("rows_until") or examples.get("created_before")
    return parse_timestamp(str(until)) if until else run.start_time
