"""`perennial deploy`: creates or updates pools, the GPU limit, automations for dead and crashed runs, and deployments.

The deployments are those of one file, or of the files of several models; those of other files are not touched. Each object
is read first and written only if it differs: a repeated deploy changes nothing, concurrent deploys end in the same state.
What an operator turned off on the server stays off. The labels of a deployment record the files that it comes from and its
schedules as deployed, for the next deploy.
"""

from __future__ import annotations

import copy
import functools
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
from flows.support.outcomes import OUTCOMES
from perennial.operations.deployment_file import DEFAULT_QUEUE, Deployment, FileSet, Source, retrains_in
from perennial.operations.parameters import check_parameters
from perennial.operations.restart_automation import restart_automation
from tasks.core.ensuring import ensure
from tasks.core.errors import ConfigError, PerennialError
from tasks.core.paging import every
from tasks.registry.task import claim_for
from tasks.registry.versions import model_tags_of
from tasks.tracking import connect, registry_errors

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
"""Interval of the heartbeats of a run; with Prefect's default of 180, healthy runs would be considered dead."""
DEAD_AFTER = timedelta(seconds=3 * HEARTBEAT_SECONDS)
_ENDS = (*OUTCOMES, "Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")

Profile = Literal["local", "docker", "kubernetes"]
"""Where runs execute: processes in this folder, processes in the workers' containers, or Jobs of a cluster."""
IMAGE_FOLDER = Path("/app")
"""The folder of this code in the images."""
FILES = "perennial.files"
"""Label of a deployment: the files that it was deployed from, as a JSON list."""
SCHEDULES = "perennial.schedules"
"""Label of a deployment: whether each schedule was active in the file, as a JSON mapping by slug."""
FIRST_QUEUE = "high"
"""The queue that comes before the others of its pool."""
_ATTEMPTS = 3
Change = tuple[str, str]
"""The action (``created``, ``changed``, ``as it was``, ``stays``, ``gone`` or ``removed``) and its subject."""


def deploy(
    files: FileSet | Path,
    profile: Profile,
    num_gpus: int | None = None,
    *,
    prune: bool = False,
    take_over: bool = False,
    adopt: bool = False,
    claims: bool = True,
    dry_run: bool = False,
) -> Iterator[Change]:
    """Updates the server to match the files; one change per object.

    Args:
        files: One file of deployments, ``deployments/prefect.yaml``; or the files of several models.
        profile: Where runs execute.
        num_gpus: Maximum number of runs that hold a GPU at a time; None keeps the limit, initially 1.
        prune: Remove deployments that came from these files and are no longer in them; otherwise they are only listed.
        take_over: Replace deployments of the same name that another file deployed differently.
        adopt: Mark existing experiments and registered models as owned by this installation.
        claims: Create the experiment and the registered model of every configuration in MLflow; False only lists them.
        dry_run: Report the changes, and write nothing.

    Raises:
        ConfigError: A file or an entrypoint cannot be read as deployments, or another file has deployments of these names,
            or deployments that write the same registered model.
        PerennialError: A server does not respond, or rejects a call.
        RegistryError: An experiment or a registered model belongs to another installation.
    """
    if isinstance(files, Path):
        files = FileSet.of(files)
    retrains = [settings for source in files.sources for settings in retrains_in(source.deployments, source.path)]
    planned = [
        DeploymentPlan.of(deployment, profile, source) for source in files.sources for deployment in source.deployments
    ]
    pools = {deployment.wanted.work_pool.name for deployment in planned}
    queues = {deployment.wanted.work_pool.work_queue_name for deployment in planned}
    with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
        present = present_deployments(client)
        if not take_over:
            _check_ownership(planned, present, files)
        for pool in sorted(pools):
            with prefect_errors(f"work pool {pool}"):
                yield from _ensure_pool(client, pool, profile, files.pools, dry_run=dry_run)
                yield from _ensure_queues(client, pool, queues, dry_run=dry_run)
        with prefect_errors(f"concurrency limit {GPU_SLOTS}"):
            yield from _ensure_limit(client, num_gpus, dry_run=dry_run)
        for automation in (zombie_automation(), restart_automation()):
            with prefect_errors(f"automation {automation.name}"):
                yield from ensure_automation(client, automation, dry_run=dry_run)
        for settings in retrains:
            yield from _claim(settings, adopt=adopt, claims=claims, dry_run=dry_run)
        flow_id = functools.cache(client.create_flow_from_name)
        for plan in planned:
            with prefect_errors(f"deployment {plan.name}"):
                yield from ensure_deployment(client, plan, files, present.get(plan.name), flow_id, dry_run=dry_run)
        yield from _handle_removed(client, files, planned, present, prune=prune and not dry_run)


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


def _ensure_pool(
    client: SyncPrefectClient, name: str, profile: Profile, templates: Path, *, dry_run: bool
) -> Iterator[Change]:
    """Creates or updates a pool. Its type is fixed; its template, with the resources of a Job, can change."""
    kind = "kubernetes" if profile == "kubernetes" else "process"
    template = _template(templates / f"kubernetes-{name.rpartition('-')[2]}.json") if kind == "kubernetes" else {}
    if dry_run and _read(client.read_work_pool, name) is None:
        yield "created", f"work pool {name}"
        return
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
        if not dry_run:
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


def _ensure_queues(client: SyncPrefectClient, pool: str, queues: set[str], *, dry_run: bool) -> Iterator[Change]:
    """Creates the queues of a pool; ``high`` comes before all that it has, any other after them. A present one stays."""
    for name in sorted(queues - {DEFAULT_QUEUE}):
        subject = f"work queue {name} of {pool}"
        if dry_run:
            present = _read(client.read_work_queue_by_name, name, pool) is not None
            yield "as it was" if present else "created", subject
            continue
        found, is_new = ensure(
            subject,
            lambda name=name: _read(client.read_work_queue_by_name, name, pool),  # type: ignore[misc]
            lambda name=name: client.create_work_queue(  # type: ignore[misc]
                name, priority=1 if name == FIRST_QUEUE else None, work_pool_name=pool
            ),
            ObjectAlreadyExists,
        )
        yield "created" if is_new else "as it was", subject
        if found.is_paused:
            todo = f"prefect work-queue resume {name} --pool {pool}"
            yield "stays", f"{subject} paused on the server; to resume: {todo}"


def _ensure_limit(client: SyncPrefectClient, slots: int | None, *, dry_run: bool) -> Iterator[Change]:
    if dry_run and _read(client.read_global_concurrency_limit_by_name, GPU_SLOTS) is None:
        yield "created", f"concurrency limit {GPU_SLOTS}: {slots or 1}"
        return
    found, is_new = ensure(
        f"concurrency limit {GPU_SLOTS}",
        lambda: _read(client.read_global_concurrency_limit_by_name, GPU_SLOTS),
        lambda: client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=slots or 1)),
        ObjectAlreadyExists,
    )
    action = "created" if is_new else "as it was"
    if slots is not None and found.limit != slots:
        if not dry_run:
            client.upsert_global_concurrency_limit_by_name(GPU_SLOTS, slots)
        action = "changed"
    yield action, f"concurrency limit {GPU_SLOTS}: {slots or found.limit}"
    if not found.active:
        todo = f"prefect global-concurrency-limit enable {GPU_SLOTS}"
        yield "stays", f"concurrency limit {GPU_SLOTS} turned off on the server; to enable: {todo}"


def ensure_automation(client: SyncPrefectClient, wanted: AutomationCore, *, dry_run: bool = False) -> Iterator[Change]:
    """Creates or updates an automation. Prefect allows duplicate names; concurrent deploys keep the same one."""
    subject = f"automation {wanted.name}"
    if dry_run:
        present = client.read_automations_by_name(wanted.name)
        changed = [one for one in present if _comparable(one) != _comparable(wanted)]
        yield "changed" if changed else "as it was" if present else "created", subject
        return
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


def _claim(settings: RetrainConfig, *, adopt: bool, claims: bool, dry_run: bool) -> Iterator[Change]:
    """Creates a model's experiment and registered model, so that no other account owns them before the first retrain."""
    if not claims:
        todo = "set MLFLOW_TRACKING_URI (and its account), so that no other account creates them before the first retrain"
        yield "not made", f"experiment {settings.name!r} and registered model {settings.registry.registered_name!r}: {todo}"
        return
    if dry_run:
        name = settings.registry.registered_name
        with registry_errors(f"registered model {name}"):
            is_there = connect().get_experiment_by_name(settings.name) is not None
            yield "as it was" if is_there else "created", f"MLflow experiment {settings.name!r}"
            is_there = model_tags_of(connect(), name) is not None
            yield "as it was" if is_there else "created", f"registered model {name!r}"
        return
    for subject, is_new in claim_for(settings.registry, settings.name, adopt=adopt).items():
        yield "created" if is_new else "as it was", subject


# ------------------------------------------------------------------------------------------------------------- deployments


class DeploymentPlan:
    """The target state of a deployment on the server.

    Attributes:
        name: ``flow/deployment``.
        file: The file's identity.
        model: The registered model of the file, where it is that of one model.
        wanted: The deployment in the file.
        fields: The fields on the server by name, except schedules and labels.
    """

    def __init__(self, wanted: Deployment, flow: Flow[..., Any], source: Source, profile: Profile) -> None:
        self.name = f"{flow.name}/{wanted.name}"
        self.flow = flow
        self.file = source.identity
        self.model = source.model
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
            "work_queue_name": wanted.work_pool.work_queue_name,
            "job_variables": job_variables,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
            "parameter_openapi_schema": form_of(flow, wanted.form),
            "concurrency_limit": limit.limit if limit else None,
            "concurrency_options": {"collision_strategy": limit.collision_strategy.value} if limit else None,
        }

    @classmethod
    def of(cls, wanted: Deployment, profile: Profile, source: Source) -> DeploymentPlan:
        """The plan of one entry of the file.

        Raises:
            ConfigError: There is no such flow, or the form or a parameter is invalid.
        """
        where = f"{source.path}, deployment {wanted.name}"
        try:
            flow = _load_flow(wanted.entrypoint)
        except (PrefectException, ImportError, OSError, ValueError, TypeError) as error:
            found = f"no flow at {wanted.entrypoint} ({type(error).__name__})"
            todo = "Correct it; it is relative to the folder that the command runs in."
            raise ConfigError(where, found, "the entrypoint of a flow, such as flows/retrain.py:retrain", todo) from error
        parameters = _schema_of(flow)["properties"]
        unknown = [name for name in (*(wanted.form or ()), *wanted.parameters) if name not in parameters]
        if unknown:
            raise ConfigError(
                where, f"the parameter {unknown[0]}", f"one of {', '.join(parameters)}", "Rename or remove it."
            )
        check_parameters(flow.fn, wanted.parameters, f"{where}, parameters")
        return cls(wanted, flow, source, profile)

    def differing(self, found: DeploymentResponse) -> list[str]:
        """The fields in which the server's deployment differs."""
        return [key for key, value in self.fields.items() if value != _present(found, key)]

    def compare(
        self, found: DeploymentResponse | None, files: FileSet
    ) -> tuple[list[DeploymentScheduleCreate], list[str], dict[str, str], list[str]]:
        """What to write beside the fields, schedules and labels, with the notes on schedules; and the fields that differ."""
        schedules, notes = self.schedules(found)
        labels = self.labels(found, files)
        differing = []
        if found is not None:
            differing = self.differing(found)
            differing += ["schedules"] if _sorted_schedules(schedules) != _sorted_schedules(found.schedules) else []
            differing += ["files"] if any(found.labels.get(key) != value for key, value in labels.items()) else []
        return schedules, notes, labels, differing

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

    def labels(self, found: DeploymentResponse | None, files: FileSet) -> dict[str, str]:
        """The labels to write: the files that contain this deployment, without those that are gone, and its schedules."""
        earlier = [file for file in files_of(found) if not files.is_gone(file)]
        schedules = {schedule.slug: schedule.active for schedule in self.wanted.schedules}
        return {FILES: json.dumps(sorted({*earlier, self.file})), SCHEDULES: json.dumps(schedules, sort_keys=True)}


@functools.cache
def _load_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow of an entrypoint; the deployments of many models share a few."""
    return load_flow_from_entrypoint(entrypoint)


def ensure_deployment(
    client: SyncPrefectClient,
    plan: DeploymentPlan,
    files: FileSet,
    found: DeploymentResponse | None,
    flow_id: Callable[[str], Any],
    *,
    dry_run: bool = False,
) -> Iterator[Change]:
    """Creates a deployment, or updates it if fields differ; the change lists their names.

    Args:
        client: The server.
        plan: The deployment.
        files: All files of this deploy.
        found: The deployment as listed; it is read again before it is written.
        flow_id: Registers a flow by its name.
        dry_run: Write nothing.
    """
    for _ in range(_ATTEMPTS):
        schedules, notes, labels, differing = plan.compare(found, files)
        if (found is None or differing) and not dry_run:
            found = _read(client.read_deployment_by_name, plan.name)  # an operator may have changed it since the list
            schedules, notes, labels, differing = plan.compare(found, files)
        if (found is None or differing) and not dry_run:
            try:
                _write(client, flow_id(plan.flow.name), plan.wanted.name, plan.fields, schedules, labels)
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


def present_deployments(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """All deployments of the server by ``flow/deployment``, in the order of their names."""
    with prefect_errors("deployments"):
        flows = {flow.id: flow.name for flow in every(lambda limit, offset: client.read_flows(limit=limit, offset=offset))}
        found = list(every(lambda limit, offset: client.read_deployments(limit=limit, offset=offset)))
    return {f"{flows.get(one.flow_id, one.flow_id)}/{one.name}": one for one in sorted(found, key=lambda one: one.name)}


def _check_ownership(planned: list[DeploymentPlan], present: dict[str, DeploymentResponse], files: FileSet) -> None:
    """Rejects, before any write, what another file deployed: differently under these names, or for the same model."""
    for plan in planned:
        found = present.get(plan.name)
        others = [file for file in files_of(found) if file != plan.file and not files.is_gone(file)]
        differing = plan.differing(found) if found else []
        if others and set(differing) - {"version"}:
            raise ConfigError(
                f"{plan.file}, deployment {plan.name}",
                f"one of that name from {', '.join(others)}, with another {' and '.join(differing)}",
                "a unique name, or the same deployment in both files",
                "Rename it here, or deploy with --take-over if this file replaces that one.",
            )
    written = {plan.model: plan.file for plan in planned if plan.model}
    for name, found in present.items():
        others = [file for file in files_of(found) if not files.covers(file)]
        model = _registered_model(found)
        if others and model in written and name not in {plan.name for plan in planned}:
            raise ConfigError(
                f"{written[model]}, registered model {model}",
                f"deployment {name} of {', '.join(others)}, which writes it too",
                "one file for each registered model",
                "Take it out of the other file and deploy that with --prune; or deploy with --take-over to have both.",
            )


def _registered_model(deployment: DeploymentResponse) -> str | None:
    """The registered model in a deployment's parameters; None where it has none."""
    config = (deployment.parameters or {}).get("config")
    if not isinstance(config, dict):
        return None
    registration = config.get("registry")
    name = registration.get("model_name") if isinstance(registration, dict) else None
    return str(name or config.get("name"))


def _handle_removed(
    client: SyncPrefectClient,
    files: FileSet,
    planned: list[DeploymentPlan],
    present: dict[str, DeploymentResponse],
    *,
    prune: bool,
) -> Iterator[Change]:
    """Lists, or removes, deployments that are no longer in these files; those that are in another file too stay."""
    wanted = {(plan.file, plan.name) for plan in planned}
    names = {plan.name for plan in planned}
    for name, deployment in present.items():
        gone = [file for file in files_of(deployment) if files.covers(file) and (file, name) not in wanted]
        others = [file for file in files_of(deployment) if file not in gone]
        if not gone or (name in names and all(files.is_gone(file) for file in gone)):  # the second: another file has it now
            continue
        if not prune:
            missing = f"{', '.join(gone)}; `perennial deploy --prune` removes it"
            yield "gone", f"deployment {name} is no longer in {missing}"
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
    "work_queue_name",
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


def files_of(deployment: DeploymentResponse | None) -> list[str]:
    """The identities of the files that a deployment was deployed from."""
    return _label(deployment, FILES, [])


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


@functools.cache
def form_of(flow: Flow[..., Any], fields: tuple[str, ...] | None) -> dict[str, Any]:
    """The schema of Prefect's form, which its API validates before a run exists: all parameters, or the named fields.

    The other parameters keep the deployment's values. A named parameter is required even if the code accepts None.
    """
    schema = copy.deepcopy(_schema_of(flow))
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


@functools.cache
def _schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    """The schema of all parameters; making it takes a tenth of a second, and many deployments share a flow."""
    return parameter_schema(flow).model_dump(mode="json")


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
