"""A crashed run is started once more by the server itself, and never a third time; real server, no worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from uuid import UUID

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.states import Cancelled, Crashed, Failed, Pending, Running, State

from perennial.operations.deployment import ensure_automation
from perennial.operations.restart_automation import RESTARTED, restart_automation

QUIET_SECONDS = 6.0


@pytest.fixture
def client(embedded_home: object) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        for automation in client.read_automations_by_name(restart_automation().name):
            client.delete_automation(automation.id)
        said = [word for _ in range(2) for word, _ in ensure_automation(client, restart_automation())]
        assert said == ["created", "as it was"]
        time.sleep(1.0)  # the server's triggers are loaded anew
        yield client
        for automation in client.read_automations_by_name(restart_automation().name):
            client.delete_automation(automation.id)


def start(client: SyncPrefectClient, flow: str, tags: list[str]) -> UUID:
    """A new run of a deployment, as a worker would take it."""
    deployment = client.create_deployment(
        client.create_flow_from_name(flow), name="crashing", tags=tags, enforce_parameter_schema=False
    )
    run = client.create_flow_run_from_deployment(deployment)
    go_on(client, run.id)
    return run.id


def go_on(client: SyncPrefectClient, run: UUID) -> None:
    states: list[State] = [Pending(), Running()]
    for state in states:
        client.set_flow_run_state(run, state)


def name_after(client: SyncPrefectClient, run: UUID, wanted: str | None, seconds: float) -> str:
    deadline, name = time.monotonic() + seconds, ""
    while time.monotonic() < deadline and name != wanted:
        state = client.read_flow_run(run).state
        name = state.name or "" if state else ""
        time.sleep(0.2)
    return name


@pytest.mark.timeout(180)
def test_a_crashed_run_is_started_once_more_and_no_third_time(client: SyncPrefectClient) -> None:
    runs = {flow: start(client, flow, ["perennial"]) for flow in RESTARTED}
    others = {
        "rollback": start(client, "rollback", ["perennial"]),
        "train-adapter": start(client, "train-adapter", ["perennial", "gpu"]),
        "another's": start(client, "retrain", ["somebody-s"]),
        "failed": start(client, "retrain", ["perennial"]),
        "cancelled": start(client, "retrain", ["perennial"]),
    }
    for run in (*runs.values(), others["rollback"], others["train-adapter"], others["another's"]):
        client.set_flow_run_state(run, Crashed(message="The process is gone."), force=True)
    client.set_flow_run_state(others["failed"], Failed(), force=True)
    client.set_flow_run_state(others["cancelled"], Cancelled(), force=True)
    for run in runs.values():
        assert name_after(client, run, "AwaitingRetry", 60) == "AwaitingRetry"
        go_on(client, run)
        client.set_flow_run_state(run, Crashed(message="Again."), force=True)
    time.sleep(QUIET_SECONDS)
    assert {name_after(client, run, None, 0.3) for run in runs.values()} == {"Crashed"}
    ends = {name: name_after(client, run, None, 0.3) for name, run in others.items()}
    assert ends.pop("failed") == "Failed"
    assert ends.pop("cancelled") == "Cancelled"
    assert set(ends.values()) == {"Crashed"}
