"""Weighing an alert as Prefect tasks. Both look at the world and at the clock, so neither is kept across runs."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterator
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterExpectedStartTime
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import TaskRunContext
from prefect.events import emit_event

from tasks.alerts.config import AlertPolicy
from tasks.contracts.alerts import Alert, AlertDecision, NewRows, RetrainHistory
from tasks.core.paging import every
from tasks.core.progress import report_progress
from tasks.core.stage import stage_task
from tasks.core.timestamps import parse_timestamp

logger = logging.getLogger(__name__)

RETRAIN_FLOW = "retrain"
ALERT_FLOW = "retrain-on-alert"
_HORIZON_DAYS = 400.0
"""Retrains older than this are as good as none: beyond the longest cool-down (365 days)."""
_OPEN = (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING, StateType.PAUSED, StateType.CANCELLING)
"""Of runs whose time has come: a scheduled one starts as soon as a worker is there."""
_ENDED = (StateType.COMPLETED, StateType.FAILED)
"""Runs that came to an end of their own. One that crashed or was cancelled settles nothing and starts no cool-down."""


@stage_task("read_history", cached=False)
def read_history(model: str, alert: Alert, policy: AlertPolicy) -> RetrainHistory:
    """What Prefect remembers of a model's retrains, however they were started, and of the alerts about it."""
    now = dt.datetime.now(dt.UTC)
    with report_progress("read_history") as progress, get_client(sync_client=True) as client:
        retrains = [
            run
            for run in _runs_of(client, RETRAIN_FLOW, now - dt.timedelta(days=_HORIZON_DAYS), now)
            if _section(run, "config").get("name") == model
        ]
        since = now - dt.timedelta(hours=policy.signal_window_hours)
        alerts = [_section(run, "alert") for run in _runs_of(client, ALERT_FLOW, since, now)]
        progress.finish(f"{len(retrains)} retrains of {model}")
    ended = [run for run in retrains if run.state_type in _ENDED and run.end_time]
    learned = [_learned_until(run) for run in retrains if run.state_type == StateType.COMPLETED]
    return RetrainHistory(
        open_runs=tuple(sorted(run.name for run in retrains if run.state_type in _OPEN)),
        last_ended=max((run.end_time for run in ended if run.end_time), default=None),
        learned_until=max((moment for moment in learned if moment), default=None),
        signals=tuple(sorted({alert.signal} | {str(item["signal"]) for item in alerts if item.get("model") == model})),
    )


@stage_task("decide_retrain", cached=False)
def decide_retrain(
    alert: Alert, model: str, history: RetrainHistory, new_rows: NewRows, policy: AlertPolicy
) -> AlertDecision:
    """Whether the alert becomes a retrain, with the reasons on the run's page and in Prefect's event feed."""
    from tasks.alerts.policy import judge_alert

    with report_progress("decide_retrain") as progress:
        decision = judge_alert(alert, model, history, new_rows, policy, dt.datetime.now(dt.UTC))
        progress.finish("a retrain starts" if decision.retrain else "no retrain")
    verdict = "retrain" if decision.retrain else "no retrain"
    logger.info("alerts: %s of %s: %s", verdict, model, " ".join(decision.reasons))
    if TaskRunContext.get():
        lines = [f"**{verdict.capitalize()}** of {model}.", "", *(f"- {reason}" for reason in decision.reasons)]
        create_markdown_artifact("\n".join(lines), key="alert-decision", description="Whether the alert becomes a retrain")
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
    """A parameter that is a mapping; empty for a run that was given something else."""
    value = (run.parameters or {}).get(name)
    return value if isinstance(value, dict) else {}


def _learned_until(run: FlowRun) -> dt.datetime | None:
    """The end of the rows that a completed retrain read: its window's, or else the time it began."""
    asked = _section(run, "request").get("rows_until")
    given = asked or (_section(run, "config").get("examples") or {}).get("created_before")
    if given:
        return parse_timestamp(str(given))
    return run.start_time
