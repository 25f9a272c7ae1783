"""Runs that ended, read from Prefect: also those that a crash ended, which could notify nobody themselves."""

from __future__ import annotations

import datetime as dt
import re

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.utilities.urls import url_for

from flows.support.outcomes import OUTCOMES
from perennial.operations.deployment import present_deployments
from perennial.operations.fleet import model_of
from tasks.contracts.base import FrozenModel
from tasks.core.paging import every

_TAG = "model:"
_ERROR = re.compile(r"^Flow run encountered an exception: (\w+(?:Error|Exception))\b")


class EndedRun(FrozenModel):
    """A run that completed, failed or crashed.

    Attributes:
        id: Prefect's id.
        name: Prefect's name.
        flow: The flow's name, such as ``retrain``.
        model: Whose run it is.
        state: The name of its state, such as ``Promoted`` or ``Crashed``.
        succeeded: Whether it completed.
        error: The class of the exception that ended it. Its text may quote data, and is not read.
        sentence: The message of an outcome's state: figures and names. Empty for other states.
        ended_at: ISO 8601 in UTC.
        url: Its page; None where the server has none.
    """

    id: str
    name: str
    flow: str
    model: str
    state: str
    succeeded: bool
    error: str | None = None
    sentence: str = ""
    ended_at: str
    url: str | None = None


def read_ended(client: SyncPrefectClient, since: dt.datetime) -> list[EndedRun]:
    """Runs of the models' deployments that ended at a time or later, the earliest first; cancelled ones are left out.

    A run belongs to the model that its tag names, or its deployment's, or the configuration. A retrain that another run
    started, such as one on an alert, is left out where it failed: its parent fails with it.
    """
    flows = {flow.id: flow.name for flow in every(lambda limit, offset: client.read_flows(limit=limit, offset=offset))}
    present = {deployment.id: deployment for deployment in present_deployments(client).values()}
    states = FlowRunFilterStateType(any_=[StateType.COMPLETED, StateType.FAILED, StateType.CRASHED])
    chosen = FlowRunFilter(state=FlowRunFilterState(type=states), end_time=FlowRunFilterEndTime(after_=since))
    runs = every(
        lambda limit, offset: client.read_flow_runs(
            flow_run_filter=chosen, sort=FlowRunSort.END_TIME_DESC, limit=limit, offset=offset
        )
    )
    found = []
    for run in runs:
        deployment = present.get(run.deployment_id) if run.deployment_id else None
        if run.parent_task_run_id is not None and (
            flows.get(run.flow_id, "") != "retrain" or run.state_type != StateType.COMPLETED
        ):
            continue
        tags = [*run.tags, *(deployment.tags if deployment else ())]
        model = next((tag.removeprefix(_TAG) for tag in tags if tag.startswith(_TAG)), None)
        model = model or model_of(deployment or run)
        if model is not None:
            found.append(_ended(run, flows.get(run.flow_id, ""), model))
    return found[::-1]


def _ended(run: FlowRun, flow: str, model: str) -> EndedRun:
    state, end = run.state, run.end_time
    assert state is not None
    assert end is not None
    message, name = state.message or "", state.name or state.type.value.capitalize()
    error = _ERROR.search(message)
    return EndedRun(
        id=str(run.id),
        name=run.name,
        flow=flow,
        model=model,
        state=name,
        succeeded=state.type is StateType.COMPLETED,
        error=error[1] if error else None,
        sentence=message if name in OUTCOMES else "",
        ended_at=dt.datetime.fromtimestamp(end.timestamp(), dt.UTC).isoformat(timespec="seconds"),
        url=url_for("flow-run", obj_id=run.id),
    )
