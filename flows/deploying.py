"""What `perennial deploy` brings a Prefect server to: pools, the GPU limit, the automation for dead runs, deployments.

The deployments are those of ``deployments/prefect.yaml``. Each thing is read first and written only where it differs, so
that deploying again changes nothing and says so.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import yaml
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    VariableCreate,
    VariableUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyOptions, StateType
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.gpu import GPU_SLOTS
from tasks.documents import parse_yaml, read_text
from tasks.errors import ConfigError

HEARTBEAT_SECONDS = 30
"""How often a run says that it lives; with Prefect's own 180, healthy runs would be taken for dead."""
DEAD_AFTER = timedelta(seconds=3 * HEARTBEAT_SECONDS)
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")

Profile = Literal["local", "docker", "kubernetes"]
"""Where runs work: processes in this folder, processes in the workers' containers, or Jobs of a cluster."""
DEPLOYED = "perennial_deployed"
"""Prefect variable that says what was deployed here: the version of the code, the profile, and the schedules left off."""
IMAGE_FOLDER = Path("/app")
"""Where the images have this code."""
Change = tuple[str, str]
"""What happened (``created``, ``changed`` or ``as it was``) and to what."""


def deploy(file: Path, profile: Profile, num_gpus: int) -> Iterator[Change]:
    """Brings the server to what the file says, one line a thing.

    Args:
        file: The deployments; ``deployments/prefect.yaml``.
        profile: Where runs work.
        num_gpus: How many runs may hold a GPU at a time.

    Raises:
        ConfigError: The file cannot be read as deployments.
    """
    try:
        wanted = parse_yaml(read_text(file))["deployments"]
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(str(file), type(error).__name__, "a file of Prefect deployments", "Correct the path.") from error
    with get_client(sync_client=True) as client:
        for pool in sorted({one["work_pool"]["name"] for one in wanted}):
            yield _ensure_pool(client, pool, profile, file.parent / "pools"), f"work pool {pool}"
        yield _ensure_limit(client, num_gpus), f"concurrency limit {GPU_SLOTS}: {num_gpus}"
        automation = zombie_automation()
        yield _ensure_automation(client, automation), f"automation {automation.name}"
        for one in wanted:
            yield _ensure_deployment(client, one, profile)
        off = [f"{one['name']}/{plan['slug']}" for one in wanted for plan in one.get("schedules", []) if not plan["active"]]
        told = {"version": code_version(), "profile": profile, "off": off}
        yield _ensure_variable(client, told), f"variable {DEPLOYED}: {told['version']}, {profile}"


def code_version() -> str:
    """The version of this code, as :data:`DEPLOYED` tells it."""
    return importlib.metadata.version("perennial-llm")


def zombie_automation() -> AutomationCore:
    """Marks a run as crashed whose heartbeats stopped before it ended; a run that waits for a person sends none and may."""
    beat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name="perennial: dead runs",
        description="A run whose heartbeats stopped without an end has crashed, and holds nothing any more.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={beat},
            expect={beat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=DEAD_AFTER,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="Its heartbeats stopped: the process is gone.")],
    )


def _ensure_pool(client: SyncPrefectClient, name: str, profile: Profile, templates: Path) -> str:
    """A pool's kind cannot be changed; its template, which says what a Job asks the cluster for, can."""
    kind = "kubernetes" if profile == "kubernetes" else "process"
    template = {}
    if kind == "kubernetes":
        template = json.loads((templates / f"kubernetes-{name.rpartition('-')[2]}.json").read_text(encoding="utf-8"))
    try:
        found = client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template))
        return "created"
    if found.type != kind:
        raise ConfigError(
            f"work pool {name}", found.type, kind, "Delete it on Prefect's page, or deploy with the profile it was made for."
        )
    if not template or found.base_job_template == template:
        return "as it was"
    client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
    return "changed"


def _ensure_limit(client: SyncPrefectClient, slots: int) -> str:
    try:
        before = client.read_global_concurrency_limit_by_name(GPU_SLOTS).limit
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=slots))
        return "created"
    client.upsert_global_concurrency_limit_by_name(GPU_SLOTS, slots)
    return "as it was" if before == slots else "changed"


def _ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return "created"
    if _comparable(found[0]) == _comparable(wanted):
        return "as it was"
    client.update_automation(found[0].id, wanted)
    return "changed"


def _ensure_variable(client: SyncPrefectClient, value: dict[str, Any]) -> str:
    """Comes last: while it differs from the code, a deployment broke off or is of another version (`perennial doctor`)."""
    found = client.read_variable_by_name(DEPLOYED)
    if found is None:
        client.create_variable(VariableCreate(name=DEPLOYED, value=value))
        return "created"
    if found.value == value:
        return "as it was"
    client.update_variable(VariableUpdate(name=DEPLOYED, value=value))
    return "changed"


def _comparable(automation: AutomationCore) -> Any:
    """What is said about an automation, without the ids that the server gave and in one order."""
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    told: dict[str, Any] = trigger.model_dump(mode="json", exclude={"id"})
    for key in ("after", "expect", "for_each"):
        told[key] = sorted(told[key])
    actions = [action.model_dump(mode="json") for action in automation.actions]
    return automation.enabled, automation.description, told, actions


def _form_of(flow: Flow[..., Any], fields: list[str] | None) -> dict[str, Any]:
    """What Prefect's form asks, and what its API checks before a run exists: all parameters, or those named.

    The others keep the deployment's values. A named one that may be None in code is asked for here.
    """
    schema: dict[str, Any] = parameter_schema(flow).model_dump(mode="json")
    if fields is None:
        return schema
    schema["properties"] = {name: schema["properties"][name] for name in fields}
    for one in schema["properties"].values():
        given = [option for option in one.get("anyOf", []) if option.get("type") != "null"]
        if len(given) == 1:
            del one["anyOf"], one["default"]
            one.update(given[0])
    schema["required"] = [name for name, one in schema["properties"].items() if "default" not in one]
    schema["definitions"] = _reached(schema["properties"], schema["definitions"])
    return schema


def _reached(part: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that a part of a schema refers to, and those refer to."""
    found: dict[str, Any] = {}
    waiting = [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).rpartition("/")[2]
            if name in definitions and name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return found


def _ensure_deployment(client: SyncPrefectClient, wanted: dict[str, Any], profile: Profile) -> Change:
    """Creates a deployment or, where a field differs, writes it anew; the names of those fields are told."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(wanted["entrypoint"])
    folder = Path.cwd() if profile == "local" else IMAGE_FOLDER
    # The Jobs of a cluster have it from their ConfigMap, with the rest of their environment.
    beats = {} if profile == "kubernetes" else {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
    name = f"{flow.name}/{wanted['name']}"
    limit = wanted.get("concurrency_limit")
    schedules = wanted.get("schedules", [])
    fields: dict[str, Any] = {
        "entrypoint": wanted["entrypoint"],
        "description": wanted["description"],
        "tags": wanted.get("tags", []),
        "parameters": wanted.get("parameters", {}),
        "work_pool_name": wanted["work_pool"]["name"],
        "job_variables": beats,
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
        "parameter_openapi_schema": _form_of(flow, wanted.get("form")),
    }
    told = {
        **fields,
        "concurrency_limit": limit["limit"] if limit else None,
        "schedules": [(one["slug"], one["cron"], one["timezone"], one["active"]) for one in schedules],
    }
    try:
        found = client.read_deployment_by_name(name)
    except ObjectNotFound:
        word, differing = "created", []
    else:
        present = {key: getattr(found, key) for key in fields}
        present["concurrency_limit"] = found.global_concurrency_limit.limit if found.global_concurrency_limit else None
        present["schedules"] = [
            (one.slug, getattr(one.schedule, "cron", None), getattr(one.schedule, "timezone", None), one.active)
            for one in found.schedules
        ]
        differing = [key for key in told if told[key] != present[key]]
        if not differing:
            return "as it was", f"deployment {name}"
        word = "changed"
    options = ConcurrencyOptions(collision_strategy=limit["collision_strategy"]) if limit else None
    client.create_deployment(
        client.create_flow(flow),
        wanted["name"],
        concurrency_limit=limit["limit"] if limit else None,
        concurrency_options=options,
        enforce_parameter_schema=True,
        schedules=[
            DeploymentScheduleCreate(
                slug=one["slug"], active=one["active"], schedule=CronSchedule(cron=one["cron"], timezone=one["timezone"])
            )
            for one in schedules
        ],
        **fields,
    )
    return word, f"deployment {name}" + (f" ({', '.join(differing)})" if differing else "")
