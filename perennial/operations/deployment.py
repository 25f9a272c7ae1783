"""`perennial deploy`: creates or updates pools, the GPU limit, automations for dead and crashed runs, and deployments.

The deployments are those of one file; those of other files are not touched. Each object is read first and written only if
it differs: a repeated deploy changes nothing, and concurrent deploys end in the same state. What an operator turned off on
the server stays off. The labels of a deployment record the files that it comes from and its schedules as deployed, for the
next deploy.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentCreate,
    DeploymentScheduleCreate,
    GlobalConcurrencyLimitCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyOptions, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from flows.support.config import RetrainConfig
from flows.support.gpu_pool import GPU_SLOTS
from perennial.operations.deployment_file import Deployment, identity_of, read_deployments, retrains_in
from perennial.operations.parameters import check_parameters
from perennial.operations.restart_automation import restart_automation
from tasks.core.ensuring import ensure
from tasks.core.errors import ConfigError, PerennialError
from tasks.core.paging import every
from tasks.registry.task import claim_for

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
"""Interval of the heartbeats of a run; with Prefect's default of 180, healthy runs would be considered dead."""
DEAD_AFTER = timedelta(seconds=3 * HEARTBEAT_SECONDS)
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")

Profile = Literal["local", "docker", "kubernetes"]
"""Where runs execute: processes in this folder, processes in the workers' containers, or Jobs of a cluster."""
IMAGE_FOLDER = Path("/app")
"""The folder of this code in the images."""
FILES = "perennial.files"
"""Label of a deployment: the files that it was deployed from, as a JSON list."""
SCHEDULES = "perennial.schedules"
"""Label of a deployment: whether each schedule was active in the file, as a JSON mapping by slug."""
_ATTEMPTS = 3
Change = tuple[str, str]
"""The action (``created``, ``changed``, ``as it was``, ``stays``, ``gone`` or ``removed``) and its subject."""


def deploy(
    path: Path,
    profile: Profile,
    num_gpus: int | None = None,
    *,
    prune: bool = False,
    take_over: bool = False,
    adopt: bool = False,
    claims: bool = True,
) -> Iterator[Change]:
    """Updates the server to match the file; one change per object.

    Args:
        path: The deployments; ``deployments/prefect.yaml``.
        profile: Where runs execute.
        num_gpus: Maximum number of runs that hold a GPU at a time; None keeps the limit, initially 1.
        prune: Remove deployments that came from this file and are no longer in it; otherwise they are only listed.
        take_over: Replace deployments of the same name that another file deployed differently.
        adopt: Mark existing experiments and registered models as owned by this installation.
        claims: Create the experiment and the registered model of every configuration in MLflow; False only lists them.

    Raises:
        ConfigError: The file or an entrypoint cannot be read as deployments, or another file has deployments of these names.
        PerennialError: A server does not respond, or rejects a call.
        RegistryError: An experiment or a registered model belongs to another installation.
    """
    deployments = read_deployments(path)
    retrains = retrains_in(deployments, path)
    planned = [DeploymentPlan.of(deployment, profile, path) for deployment in deployments]
    with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
        present = {plan.name: _read(client.read_deployment_by_name, plan.name) for plan in planned}
        if not take_over:
            _check_ownership(planned, present)
        for pool in sorted({deployment.work_pool.name for deployment in deployments}):
            with prefect_errors(f"work pool {pool}"):
                yield from _ensure_pool(client, pool, profile, path.parent / "pools")
        with prefect_errors(f"concurrency limit {GPU_SLOTS}"):
            yield from _ensure_limit(client, num_gpus)
        for automation in (zombie_automation(), restart_automation()):
            with prefect_errors(f"automation {automation.name}"):
                yield from ensure_automation(client, automation)
        for settings in retrains:
            yield from _claim(settings, adopt=adopt, claims=claims)
        for plan in planned:
            with prefect_errors(f"deployment {plan.name}"):
                yield from ensure_deployment(client, plan)
        yield from _handle_removed(client, identity_of(path), {plan.name for plan in planned}, prune=prune)


@contextmanager
def prefect_errors(where: str) -> Iterator[None]:
    """Turns errors of Prefect's client inside the block into one explained error, without the request.

    Raises:
        PerennialError: The server does not respond, rejects a call, or sends a response that this version cannot read.
    """
    expected, todo = "a Prefect server that accepts the call", "Run `perennial doctor`; earlier changes are kept."
    try:
        yield
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            todo = "Set PREFECT_API_AUTH_STRING to the server's value."
        raise PerennialError(where, f"status {code}", expected, todo) from None
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, httpx.TransportError | OSError | RuntimeError):
            todo = "Start the server, or correct PREFECT_API_URL; then run again."
        raise PerennialError(where, type(error).__name__, expected, todo) from None


def code_version() -> str:
    """The version of this code, recorded with each deployment."""
    return importlib.metadata.version("perennial-llm")


def zombie_automation() -> AutomationCore:
    """The automation that marks a run as crashed if its heartbeats stop before it ends; suspended runs are exempt."""
    heartbeat = "prefect.flow-run.heartbeat"
    return AutomationCore(
        name="perennial: dead runs",
        description="Marks a run as crashed whose heartbeats stopped before it ended; its slots are then free.",
        trigger=EventTrigger(
            match={"prefect.resource.id": "prefect.flow-run.*"},
            for_each={"prefect.resource.id"},
            after={heartbeat},
            expect={heartbeat, *(f"prefect.flow-run.{end}" for end in _ENDS)},
            posture=Posture.Proactive,
            threshold=1,
            within=DEAD_AFTER,
        ),
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message="Its heartbeats stopped: the process is gone.")],
    )


# ---------------------------------------------------------------------------------------------------- shared objects


def _ensure_pool(client: SyncPrefectClient, name: str, profile: Profile, templates: Path) -> Iterator[Change]:
    """Creates or updates a pool. Its type is fixed; its template, with the resources of a Job, can change."""
    kind = "kubernetes" if profile == "kubernetes" else "process"
    template = _template(templates / f"kubernetes-{name.rpartition('-')[2]}.json") if kind == "kubernetes" else {}
    found, is_new = ensure(
        f"work pool {name}",
        lambda: _read(client.read_work_pool, name),
        lambda: client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template=template)),
        ObjectAlreadyExists,
    )
    if found.type != kind:
        raise ConfigError(
            f"work pool {name}",
            found.type,
            kind,
            "Delete it in Prefect's UI, or deploy with the profile that it was created for.",
        )
    action = "created" if is_new else "as it was"
    if template and found.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
        action = "created" if is_new else "changed"
    yield action, f"work pool {name}"
    if found.is_paused:
        yield "stays", f"work pool {name} paused on the server; to resume: prefect work-pool resume {name}"


def _template(path: Path) -> dict[str, Any]:
    try:
        template: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            str(path),
            type(error).__name__,
            "the template of a pool's Jobs",
            "Copy one of deployments/pools beside your file; the last part of a pool's name, cpu or gpu, selects it.",
        ) from error
    return template


def _ensure_limit(client: SyncPrefectClient, slots: int | None) -> Iterator[Change]:
    found, is_new = ensure(
        f"concurrency limit {GPU_SLOTS}",
        lambda: _read(client.read_global_concurrency_limit_by_name, GPU_SLOTS),
        lambda: client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=slots or 1)),
        ObjectAlreadyExists,
    )
    action = "created" if is_new else "as it was"
    if slots is not None and found.limit != slots:
        client.upsert_global_concurrency_limit_by_name(GPU_SLOTS, slots)
        action = "changed"
    yield action, f"concurrency limit {GPU_SLOTS}: {slots or found.limit}"
    if not found.active:
        todo = f"prefect global-concurrency-limit enable {GPU_SLOTS}"
        yield "stays", f"concurrency limit {GPU_SLOTS} turned off on the server; to enable: {todo}"


def ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Iterator[Change]:
    """Creates or updates an automation. Prefect allows duplicate names; concurrent deploys keep the same one."""
    subject = f"automation {wanted.name}"
    found, is_new = ensure(subject, lambda: _only(client, wanted.name), lambda: client.create_automation(wanted))
    action = "created" if is_new else "as it was"
    if _comparable(found) != _comparable(wanted):
        client.update_automation(found.id, wanted.model_copy(update={"enabled": found.enabled}))
        action = "changed"
    yield action, subject
    if not found.enabled:
        yield "stays", f'{subject} turned off on the server; to enable: prefect automation resume "{wanted.name}"'


def _only(client: SyncPrefectClient, name: str) -> Automation | None:
    """The automation of a name; duplicates are removed."""
    found = sorted(client.read_automations_by_name(name), key=lambda automation: str(automation.id))
    for duplicate in found[1:]:
        _read(client.delete_automation, duplicate.id)
    return found[0] if found else None


def _comparable(automation: AutomationCore) -> Any:
    """The content of an automation in a canonical order, without the ids of the server."""
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    content: dict[str, Any] = trigger.model_dump(mode="json", exclude={"id"})
    for key in ("after", "expect", "for_each"):
        content[key] = sorted(content[key])
    actions = [action.model_dump(mode="json") for action in automation.actions]
    return automation.description, content, actions


def _claim(settings: RetrainConfig, *, adopt: bool, claims: bool) -> Iterator[Change]:
    """Creates a model's experiment and registered model, so that no other account owns them before the first retrain."""
    if not claims:
        todo = "set MLFLOW_TRACKING_URI (and its account), so that no other account creates them before the first retrain"
        yield "not made", f"experiment {settings.name!r} and registered model {settings.registry.registered_name!r}: {todo}"
        return
    for subject, is_new in claim_for(settings.registry, settings.name, adopt=adopt).items():
        yield "created" if is_new else "as it was", subject


# ------------------------------------------------------------------------------------------------------------- deployments


class DeploymentPlan:
    """The target state of a deployment on the server.

    Attributes:
        name: ``flow/deployment``.
        file: The file's identity.
        wanted: The deployment in the file.
        fields: The fields on the server by name, except schedules and labels.
    """

    def __init__(self, wanted: Deployment, flow: Flow[..., Any], file: str, profile: Profile) -> None:
        self.name = f"{flow.name}/{wanted.name}"
        self.flow = flow
        self.file = file
        self.wanted = wanted
        folder = Path.cwd() if profile == "local" else IMAGE_FOLDER
        # The Jobs of a cluster get it from their ConfigMap, with the rest of their environment.
        job_variables = (
            {} if profile == "kubernetes" else {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
        )
        limit = wanted.concurrency_limit
        self.fields: dict[str, Any] = {
            "version": code_version(),
            "entrypoint": wanted.entrypoint,
            "description": wanted.description,
            "tags": list(wanted.tags),
            "parameters": wanted.parameters,
            "work_pool_name": wanted.work_pool.name,
            "job_variables": job_variables,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
            "parameter_openapi_schema": form_of(flow, list(wanted.form) if wanted.form is not None else None),
            "concurrency_limit": limit.limit if limit else None,
            "concurrency_options": {"collision_strategy": limit.collision_strategy.value} if limit else None,
        }

    @classmethod
    def of(cls, wanted: Deployment, profile: Profile, path: Path) -> DeploymentPlan:
        """The plan of one entry of the file.

        Raises:
            ConfigError: There is no such flow, or the form or a parameter is invalid.
        """
        where = f"{path}, deployment {wanted.name}"
        try:
            flow: Flow[..., Any] = load_flow_from_entrypoint(wanted.entrypoint)
        except (PrefectException, ImportError, OSError, ValueError, TypeError) as error:
            found = f"no flow at {wanted.entrypoint} ({type(error).__name__})"
            todo = "Correct it; it is relative to the folder that the command runs in."
            raise ConfigError(where, found, "the entrypoint of a flow, such as flows/retrain.py:retrain", todo) from error
        parameters = parameter_schema(flow).properties
        unknown = [name for name in (*(wanted.form or ()), *wanted.parameters) if name not in parameters]
        if unknown:
            raise ConfigError(
                where, f"the parameter {unknown[0]}", f"one of {', '.join(parameters)}", "Rename or remove it."
            )
        check_parameters(flow.fn, wanted.parameters, f"{where}, parameters")
        return cls(wanted, flow, identity_of(path), profile)

    def differing(self, found: DeploymentResponse) -> list[str]:
        """The fields in which the server's deployment differs."""
        return [key for key, value in self.fields.items() if value != _present(found, key)]

    def schedules(self, found: DeploymentResponse | None) -> tuple[list[DeploymentScheduleCreate], list[str]]:
        """The target schedules of the deployment, and notes on settings of the server that override the file.

        A schedule is active as in the file if that changed since the last deploy, else as on the server.
        """
        on_server = {schedule.slug: schedule.active for schedule in found.schedules} if found else {}
        before: dict[str, bool] = _label(found, SCHEDULES, {})
        kept, notes = [], []
        for schedule in self.wanted.schedules:
            slug, active = schedule.slug, schedule.active
            if found is not None and before.get(slug, active) == active:
                if slug in on_server:
                    active = on_server[slug]
                elif slug in before:
                    notes.append(f"schedule {slug} stays removed, as on the server")
                    continue
            if active != schedule.active:
                notes.append(f"schedule {slug} {'on' if active else 'off'}, as on the server")
            kept.append(DeploymentScheduleCreate(slug=slug, active=active, schedule=schedule.at()))
        return kept, notes

    def labels(self, found: DeploymentResponse | None) -> dict[str, str]:
        """The labels to write: the files that contain this deployment, and the schedules in this file."""
        earlier: list[str] = _label(found, FILES, [])
        files = sorted({*earlier, self.file})
        schedules = {schedule.slug: schedule.active for schedule in self.wanted.schedules}
        return {FILES: json.dumps(files), SCHEDULES: json.dumps(schedules, sort_keys=True)}


def ensure_deployment(client: SyncPrefectClient, plan: DeploymentPlan) -> Iterator[Change]:
    """Creates a deployment, or updates it if fields differ; the change lists their names."""
    for _ in range(_ATTEMPTS):
        found = _read(client.read_deployment_by_name, plan.name)
        schedules, notes = plan.schedules(found)
        labels = plan.labels(found)
        differing = []
        if found is not None:
            differing = plan.differing(found)
            differing += ["schedules"] if _sorted_schedules(schedules) != _sorted_schedules(found.schedules) else []
            differing += ["files"] if any(found.labels.get(key) != value for key, value in labels.items()) else []
        if found is None or differing:
            try:
                _write(client, client.create_flow(plan.flow), plan.wanted.name, plan.fields, schedules, labels)
            except ObjectAlreadyExists:
                continue  # a concurrent deploy wrote it: compare again
        action = "created" if found is None else "changed" if differing else "as it was"
        yield action, f"deployment {plan.name}" + (f" ({', '.join(differing)})" if differing else "")
        yield from (("stays", f"deployment {plan.name}: {note}") for note in notes)
        if found is not None and found.paused:
            yield "stays", f"deployment {plan.name} paused: {resume_command(found)}"
        return
    raise PerennialError(f"deployment {plan.name}", "concurrent writers", "no other deploy at the same time", "Run again.")


def resume_command(deployment: DeploymentResponse) -> str:
    """The command that resumes a paused deployment; Prefect has no other."""
    return f"prefect api POST /deployments/{deployment.id}/resume_deployment"


def _write(
    client: SyncPrefectClient,
    flow_id: Any,
    name: str,
    fields: dict[str, Any],
    schedules: list[DeploymentScheduleCreate],
    labels: dict[str, str],
) -> None:
    """Writes a whole deployment; the client's own method does not support labels.

    Raises:
        ObjectAlreadyExists: A concurrent writer changed it.
    """
    options = fields["concurrency_options"]
    body = DeploymentCreate(
        **{**fields, "concurrency_options": ConcurrencyOptions.model_validate(options) if options else None},
        name=name,
        flow_id=flow_id,
        enforce_parameter_schema=True,
        schedules=schedules,
        labels=labels,
    )
    try:
        client.request("POST", "/deployments/", json=body.model_dump(mode="json", exclude_unset=True))
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.CONFLICT:
            raise
        raise ObjectAlreadyExists(http_exc=error) from error


def _check_ownership(planned: list[DeploymentPlan], present: dict[str, DeploymentResponse | None]) -> None:
    """Rejects, before any write, to replace a deployment that another file deployed differently."""
    for plan in planned:
        found = present[plan.name]
        files: list[str] = _label(found, FILES, [])
        others = [file for file in files if file != plan.file]
        differing = plan.differing(found) if found else []
        if others and set(differing) - {"version"}:
            raise ConfigError(
                f"{plan.file}, deployment {plan.name}",
                f"one of that name from {', '.join(others)}, with another {' and '.join(differing)}",
                "a unique name, or the same deployment in both files",
                "Rename it here, or deploy with --take-over if this file replaces that one.",
            )


def _handle_removed(client: SyncPrefectClient, file: str, wanted: set[str], *, prune: bool) -> Iterator[Change]:
    """Lists, or removes, deployments that are no longer in this file; those that are in another file too stay."""
    with prefect_errors("deployments"):
        flows = {flow.id: flow.name for flow in every(lambda limit, offset: client.read_flows(limit=limit, offset=offset))}
        found = list(every(lambda limit, offset: client.read_deployments(limit=limit, offset=offset)))
    for deployment in sorted(found, key=lambda deployment: str(deployment.name)):
        name = f"{flows.get(deployment.flow_id, deployment.flow_id)}/{deployment.name}"
        files: list[str] = _label(deployment, FILES, [])
        if file not in files or name in wanted:
            continue
        others = [other for other in files if other != file]
        if not prune:
            yield "gone", f"deployment {name} is no longer in {file}; `perennial deploy --prune` removes it"
            continue
        with prefect_errors(f"deployment {name}"):
            if others:
                fields = {key: _present(deployment, key) for key in _KEPT}
                labels = {**_own_labels(deployment), FILES: json.dumps(others)}
                schedules = [
                    DeploymentScheduleCreate(slug=schedule.slug, active=schedule.active, schedule=schedule.schedule)
                    for schedule in deployment.schedules
                ]
                _write(client, deployment.flow_id, deployment.name, fields, schedules, labels)
                yield "changed", f"deployment {name} (files): it stays for {', '.join(others)}"
            else:
                _read(client.delete_deployment, deployment.id)
                yield "removed", f"deployment {name}"


_KEPT = (
    "version",
    "entrypoint",
    "description",
    "tags",
    "parameters",
    "work_pool_name",
    "job_variables",
    "pull_steps",
    "parameter_openapi_schema",
    "concurrency_limit",
    "concurrency_options",
)


def _present(found: DeploymentResponse, key: str) -> Any:
    """A field of the server's deployment in the format of a write."""
    if key == "concurrency_limit":
        return found.global_concurrency_limit.limit if found.global_concurrency_limit else None
    if key == "concurrency_options":
        options = found.concurrency_options
        return {"collision_strategy": options.collision_strategy.value} if options else None
    return getattr(found, key)


def _sorted_schedules(schedules: list[Any]) -> list[tuple[Any, ...]]:
    """Schedules as comparable tuples in a canonical order."""
    found = [
        (each.slug, getattr(each.schedule, "cron", None), getattr(each.schedule, "timezone", None), each.active)
        for each in schedules
    ]
    return sorted(found, key=str)


def _own_labels(found: DeploymentResponse) -> dict[str, Any]:
    return {key: found.labels[key] for key in (FILES, SCHEDULES) if key in found.labels}


def _label(found: DeploymentResponse | None, key: str, absent: T) -> T:
    """The value that an earlier deploy wrote to a label; ``absent`` if there is none that can be read."""
    text = (found.labels or {}).get(key) if found is not None else None
    try:
        value = json.loads(str(text)) if text is not None else absent
    except ValueError:
        return absent
    return value if isinstance(value, type(absent)) else absent


def deployed_schedules(deployment: DeploymentResponse) -> dict[str, bool]:
    """Whether each schedule was active in the file that it was deployed from, by slug."""
    return _label(deployment, SCHEDULES, {})


def _read(call: Callable[..., T], *arguments: Any) -> T | None:
    """The response, or None if the server has no such object."""
    try:
        return call(*arguments)
    except ObjectNotFound:
        return None
    except httpx.HTTPStatusError as error:  # for some calls the client does not translate it
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
        return None


def form_of(flow: Flow[..., Any], fields: list[str] | None) -> dict[str, Any]:
    """The schema of Prefect's form, which its API validates before a run exists: all parameters, or the named fields.

    The other parameters keep the deployment's values. A named parameter is required even if the code accepts None.
    """
    schema: dict[str, Any] = parameter_schema(flow).model_dump(mode="json")
    if fields is None:
        return schema
    schema["properties"] = {name: schema["properties"][name] for name in fields}
    for field in schema["properties"].values():
        options = [option for option in field.get("anyOf", []) if option.get("type") != "null"]
        if len(options) == 1:
            del field["anyOf"], field["default"]
            field.update(options[0])
    schema["required"] = [name for name, field in schema["properties"].items() if "default" not in field]
    schema["definitions"] = _referenced(schema["properties"], schema["definitions"])
    return schema


def _referenced(part: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """The definitions that a part of a schema refers to, directly or indirectly."""
    found: dict[str, Any] = {}
    waiting = [part]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).rpartition("/")[2]
            if name in definitions and name not in found:
                found[name] = definitions[name]
                waiting.append(definitions[name])
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return found
