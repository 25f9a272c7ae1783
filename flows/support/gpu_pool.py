"""Runs a flow that needs a GPU as its own deployment, on the pool whose workers have GPUs.

Without such a deployment the flow runs in the calling process, so that the same code serves a laptop and a cluster.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import httpx
from prefect import Flow, State, get_run_logger, runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterIdempotencyKey,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.states import Cancelling, Running
from pydantic import BaseModel, TypeAdapter

from tasks.core.errors import HandOverError
from tasks.core.paging import every
from tasks.core.stage import before_work

P = ParamSpec("P")
R = TypeVar("R")

GPU_SLOTS = "gpu-slots"
"""Prefect's global concurrency limit, equal to the number of GPUs; `perennial deploy` creates it."""
WAITING = "WaitingForGpu"
LEASE_SECONDS = 300.0
"""How long the slot of a killed run stays taken. A lease is renewed at three quarters of it; if the server is unavailable
then, the run loses its slot and its process. A shorter lease would free the GPU sooner and survive fewer outages."""
POLL_SECONDS = 5.0
MAX_OUTAGE_SECONDS = 900.0


def on_gpu_pool(stage: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The stage's result, from the deployment ``<stage>/<stage>`` if there is one, else from this process.

    The child's parameters and its result are contracts as JSON, so both pools must reach the same store and results. A
    restarted run finds the child that it had started and that still runs; a crashed child is restarted once.

    Raises:
        HandOverError: The child did not complete; with its message.
    """
    name = f"{stage.name}/{stage.name}"
    own = _run_elsewhere(name)
    if own is None:
        return stage(*args, **kwargs)
    bound = inspect.signature(stage.fn).bind(*args, **kwargs)
    parameters = {key: as_json(value) for key, value in bound.arguments.items()}
    initial_name = f"{stage.name}-{runtime.flow_run.name}"  # until the child starts and sets its own name
    for again in (False, True):
        key = _key(stage.name, runtime.flow_run.run_count, again)
        child = _running_child(stage.name, parameters) or run_deployment(
            name,
            flow_run_name=initial_name,
            parameters=parameters,
            idempotency_key=key,
            timeout=0,
            tags=model_tags(own),
            work_queue_name=own.work_queue_name,
        )
        assert isinstance(child, FlowRun)
        get_run_logger().info("Handed %s over to the run %s of %s", stage.name, child.name, child.work_pool_name)
        ended = _await_end(child.id)
        state = ended.state
        if state is None or not state.is_crashed():
            break
        get_run_logger().warning("The run %s crashed: %s", ended.name, state.message)
    assert state is not None
    if not state.is_completed():
        raise HandOverError(
            f"flow run {ended.name} of {name}",
            f"{state.name}: {state.message or 'no message'}",
            "a completed run",
            "Read its log in Prefect's UI; a retry of this run starts it again, and finished stages are kept.",
        )
    result = TypeAdapter(inspect.signature(stage.fn, eval_str=True).return_annotation).validate_python(state.result())
    return result  # type: ignore[no-any-return]


def on_gpu_pool_if(condition: bool, stage: Flow[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The stage's result, by :func:`on_gpu_pool` if the condition holds, else from this process."""
    return on_gpu_pool(stage, *args, **kwargs) if condition else stage(*args, **kwargs)


@contextmanager
def gpu_slot() -> Iterator[None]:
    """Holds one of the server's GPU slots from the first stage in the block that is not cached to the end of the block.

    A block whose stages are all cached takes no slot. Without the limit on the server there is no waiting. Outside a run the
    block holds nothing.
    """
    if FlowRunContext.get() is None:
        yield
        return
    with ExitStack() as held:
        is_taken, flow_context = False, copy_context()

        def take() -> None:
            nonlocal is_taken
            if not is_taken:
                # In the context of the flow: Prefect releases a slot taken inside a task when the task ends.
                flow_context.run(held.enter_context, _slot())
                is_taken = True

        with before_work(take):
            yield


@contextmanager
def _slot() -> Iterator[None]:
    """Holds a slot; while it has to wait for one, the run's state says so by its name."""
    try:
        with get_client(sync_client=True) as client:
            limit = client.read_global_concurrency_limit_by_name(GPU_SLOTS)
    except ObjectNotFound:
        yield
        return
    if waits := limit.active_slots >= limit.limit:
        message = f"{limit.active_slots} of {limit.limit} GPU slots are taken"
        get_run_logger().info("Waits for a GPU: %s", message)
        _show_state(Running(name=WAITING, message=message))
    with concurrency(GPU_SLOTS, occupy=1, strict=True, lease_duration=LEASE_SECONDS):
        get_run_logger().info("Holds a GPU slot")
        if waits:
            _show_state(Running())
        yield


def _show_state(state: State[Any]) -> None:
    """Shows a state of the current run on Prefect's pages, unless it is being cancelled; the work does not depend on it."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    try:
        with get_client(sync_client=True) as client:
            now = client.read_flow_run(context.flow_run.id).state
            if now is not None and now.is_running():
                client.set_flow_run_state(context.flow_run.id, state, force=True)
    except httpx.HTTPError as error:
        get_run_logger().warning("The state %s is not shown: %s", state.name, type(error).__name__)


def cancel_children(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook for a cancelled or crashed run: cancels its child runs, which frees their GPUs.

    Prefect's workers stop only the process of the cancelled run.
    """
    with get_client(sync_client=True) as client:
        _cancel_below(client, flow_run.id)


def _cancel_below(client: SyncPrefectClient, parent: UUID) -> None:
    below = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[parent]))
    for child in list(every(lambda limit, offset: client.read_flow_runs(flow_run_filter=below, limit=limit, offset=offset))):
        if child.deployment_id is None:
            _cancel_below(client, child.id)
        elif child.state is None or not child.state.is_final():
            client.set_flow_run_state(child.id, Cancelling(message="The run that handed this over has ended."))


def _run_elsewhere(deployment: str) -> FlowRun | None:
    """The current run, if the deployment exists on another pool; on the same pool a child could wait for its parent."""
    with get_client(sync_client=True) as client:
        try:
            target = client.read_deployment_by_name(deployment).work_pool_name
        except ObjectNotFound:
            return None
        own = client.read_flow_run(UUID(str(runtime.flow_run.root_flow_run_id)))
    return own if target is not None and target != own.work_pool_name else None


def model_tags(run: FlowRun) -> list[str]:
    """The tags of a run that name its model and the model's owner; the runs that it starts get them too."""
    return [tag for tag in run.tags if tag.startswith(("model:", "owner:"))]


def _key(stage: str, attempt: int, again: bool) -> str:
    """The idempotency key of a child of this run."""
    return f"{runtime.flow_run.id}-{attempt}-{stage}" + ("-again" if again else "")


def _running_child(stage: str, parameters: dict[str, Any]) -> FlowRun | None:
    """A child that an earlier attempt of this run started with the same parameters and that has not ended."""
    earlier = [_key(stage, attempt, again) for attempt in range(1, runtime.flow_run.run_count) for again in (False, True)]
    if not earlier:
        return None
    active = FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING])
    children = FlowRunFilter(
        idempotency_key=FlowRunFilterIdempotencyKey(any_=earlier), state=FlowRunFilterState(type=active)
    )
    with get_client(sync_client=True) as client:
        return next((run for run in client.read_flow_runs(flow_run_filter=children) if run.parameters == parameters), None)


def _await_end(flow_run_id: UUID) -> FlowRun:
    """The run in its final state; tolerates outages of the server up to ``MAX_OUTAGE_SECONDS``."""
    last_response = time.monotonic()
    with get_client(sync_client=True) as client:
        while True:
            try:
                run = client.read_flow_run(flow_run_id)
                last_response = time.monotonic()
                if run.state is not None and run.state.is_final():
                    return run
            except (httpx.TransportError, PrefectHTTPStatusError):
                if time.monotonic() - last_response > MAX_OUTAGE_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)


def as_json(value: Any) -> Any:
    """A parameter of a stage as JSON, for its run on another pool."""
    if isinstance(value, tuple):
        return [as_json(item) for item in value]
    return value.model_dump(mode="json") if isinstance(value, BaseModel) else value
