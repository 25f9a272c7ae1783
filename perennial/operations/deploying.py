"""What `perennial deploy` brings a server to: pools, the GPU limit, automations for dead and crashed runs, deployments.

The deployments are those of one file; other files' are left alone. Each thing is read first and written only where it
differs, so that deploying again changes nothing and says so, and two commands at once end alike. What an operator turned
off on the server stays off. Each deployment carries, as labels, the files that it comes from and how its schedules were
deployed: what one command needs to know of the one before it.
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
from perennial.operations.restarting import restart_automation
from tasks.core.ensuring import ensure
from tasks.core.errors import ConfigError, PerennialError
from tasks.core.paging import every
from tasks.registry.task import claim_for

T = TypeVar("T")

HEARTBEAT_SECONDS = 30
"""How often a run says that it lives; with Prefect's own 180, healthy runs would be taken for dead."""
DEAD_AFTER = timedelta(seconds=3 * HEARTBEAT_SECONDS)
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "Suspended", "Paused", "AwaitingRetry")

Profile = Literal["local", "docker", "kubernetes"]
"""Where runs work: processes in this folder, processes in the workers' containers, or Jobs of a cluster."""
IMAGE_FOLDER = Path("/app")
"""Where the images have this code."""
FILES = "perennial.files"
"""Label of a deployment: the files that it was deployed from, as a JSON list."""
SCHEDULES = "perennial.schedules"
"""Label of a deployment: whether each schedule was active in the file, as a JSON mapping by slug."""
_ATTEMPTS = 3
Change = tuple[str, str]
"""What happened (``created``, ``changed``, ``as it was``, ``stays``, ``gone`` or ``removed``) and to what."""


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
    """Brings the server to what the file says, one line a thing.

    Args:
        path: The deployments; ``deployments/prefect.yaml``.
        profile: Where runs work.
        num_gpus: How many runs may hold a GPU at a time; None leaves the limit as it is, at first 1.
        prune: Remove the deployments that came from this file and are no longer in it; else they are named.
        take_over: Write deployments of the same name anew that another file deployed differently.
        adopt: Mark experiments and registered models as this installation's that it did not make.
        claims: Make the experiment and the registered model of every configuration in MLflow; False only names them.

    Raises:
        ConfigError: The file or an entrypoint cannot be read as deployments, or another file has deployments of these names.
        PerennialError: A server does not answer, or refuses.
        RegistryError: An experiment or a registered model is somebody else's.
    """
    wanted = read_deployments(path)
    retrains = retrains_in(wanted, path)
    planned = [_Plan.of(one, profile, path) for one in wanted]
    with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
        present = {plan.name: _read(client.read_deployment_by_name, plan.name) for plan in planned}
        if not take_over:
            _refuse_what_is_others(planned, present)
        for pool in sorted({one.work_pool.name for one in wanted}):
            with prefect_errors(f"work pool {pool}"):
                yield from _ensure_pool(client, pool, profile, path.parent / "pools")
        with prefect_errors(f"concurrency limit {GPU_SLOTS}"):
            yield from _ensure_limit(client, num_gpus)
        for automation in (zombie_automation(), restart_automation()):
            with prefect_errors(f"automation {automation.name}"):
                yield from _ensure_automation(client, automation)
        for settings in retrains:
            yield from _claim(settings, adopt=adopt, claims=claims)
        for plan in planned:
            with prefect_errors(f"deployment {plan.name}"):
                yield from _ensure_deployment(client, plan)
        yield from _settle_gone(client, identity_of(path), {plan.name for plan in planned}, prune=prune)


@contextmanager
def prefect_errors(where: str) -> Iterator[None]:
    """Turns what Prefect's client raises inside the block into one explained error, without what was sent to it.

    Raises:
        PerennialError: The server does not answer, refuses, or answers what this version does not understand.
    """
    expected, todo = "a Prefect server that takes it", "Run `perennial doctor`; what was done before stays done."
    try:
        yield
    except httpx.HTTPStatusError as error:
        code = error.response.status_code
        if code in (401, 403):
            todo = "Set PREFECT_API_AUTH_STRING to the server's."
        raise PerennialError(where, f"status {code}", expected, todo) from None
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, httpx.TransportError | OSError | RuntimeError):
            todo = "Start the server, or correct PREFECT_API_URL; then run again."
        raise PerennialError(where, type(error).__name__, expected, todo) from None


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


# ---------------------------------------------------------------------------------------------------- what is shared by all


def _ensure_pool(client: SyncPrefectClient, name: str, profile: Profile, templates: Path) -> Iterator[Change]:
    """A pool's kind cannot be changed; its template, which says what a Job asks the cluster for, can."""
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
            f"work pool {name}", found.type, kind, "Delete it on Prefect's page, or deploy with the profile it was made for."
        )
    word = "created" if is_new else "as it was"
    if template and found.base_job_template != template:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))
        word = "created" if is_new else "changed"
    yield word, f"work pool {name}"
    if found.is_paused:
        yield "stays", f"work pool {name} paused, as it was turned off on the server: prefect work-pool resume {name}"


def _template(path: Path) -> dict[str, Any]:
    try:
        template: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            str(path),
            type(error).__name__,
            "the template of a pool's Jobs",
            "Copy one of deployments/pools beside your file; a pool's last word, cpu or gpu, says which is its own.",
        ) from error
    return template


def _ensure_limit(client: SyncPrefectClient, slots: int | None) -> Iterator[Change]:
    found, is_new = ensure(
        f"concurrency limit {GPU_SLOTS}",
        lambda: _read(client.read_global_concurrency_limit_by_name, GPU_SLOTS),
        lambda: client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=GPU_SLOTS, limit=slots or 1)),
        ObjectAlreadyExists,
    )
    word = "created" if is_new else "as it was"
    if slots is not None and found.limit != slots:
        client.upsert_global_concurrency_limit_by_name(GPU_SLOTS, slots)
        word = "changed"
    yield word, f"concurrency limit {GPU_SLOTS}: {slots or found.limit}"
    if not found.active:
        todo = f"prefect global-concurrency-limit enable {GPU_SLOTS}"
        yield "stays", f"concurrency limit {GPU_SLOTS} off, as it was turned off on the server: {todo}"


def _ensure_automation(client: SyncPrefectClient, wanted: AutomationCore) -> Iterator[Change]:
    """Prefect lets two automations have one name; of those that commands at the same moment made, all keep the same one."""
    what = f"automation {wanted.name}"
    found, is_new = ensure(what, lambda: _only(client, wanted.name), lambda: client.create_automation(wanted))
    word = "created" if is_new else "as it was"
    if _comparable(found) != _comparable(wanted):
        client.update_automation(found.id, wanted.model_copy(update={"enabled": found.enabled}))
        word = "changed"
    yield word, what
    if not found.enabled:
        yield "stays", f'{what} off, as it was turned off on the server: prefect automation resume "{wanted.name}"'


def _only(client: SyncPrefectClient, name: str) -> Automation | None:
    """The automation of a name; others of that name are removed."""
    found = sorted(client.read_automations_by_name(name), key=lambda one: str(one.id))
    for other in found[1:]:
        _read(client.delete_automation, other.id)
    return found[0] if found else None


def _comparable(automation: AutomationCore) -> Any:
    """What is said about an automation, without the ids that the server gave and in one order."""
    trigger = automation.trigger
    assert isinstance(trigger, EventTrigger)
    told: dict[str, Any] = trigger.model_dump(mode="json", exclude={"id"})
    for key in ("after", "expect", "for_each"):
        told[key] = sorted(told[key])
    actions = [action.model_dump(mode="json") for action in automation.actions]
    return automation.description, told, actions


def _claim(settings: RetrainConfig, *, adopt: bool, claims: bool) -> Iterator[Change]:
    """Makes a model's experiment and registered model, so that nobody else makes and owns them before the first retrain."""
    if not claims:
        todo = "set MLFLOW_TRACKING_URI (and its account), so that nobody else makes them before the first retrain"
        yield "not made", f"experiment {settings.name!r} and registered model {settings.registry.registered_name!r}: {todo}"
        return
    for what, is_new in claim_for(settings.registry, settings.name, adopt=adopt).items():
        yield "created" if is_new else "as it was", what


# ------------------------------------------------------------------------------------------------------------- deployments


class _Plan:
    """A deployment as the server is to have it.

    Attributes:
        name: ``flow/deployment``.
        file: The file's identity.
        wanted: What the file says.
        fields: What the server keeps, by its own names, schedules and labels apart.
    """

    def __init__(self, wanted: Deployment, flow: Flow[..., Any], file: str, profile: Profile) -> None:
        self.name = f"{flow.name}/{wanted.name}"
        self.flow = flow
        self.file = file
        self.wanted = wanted
        folder = Path.cwd() if profile == "local" else IMAGE_FOLDER
        # The Jobs of a cluster have it from their ConfigMap, with the rest of their environment.
        beats = {} if profile == "kubernetes" else {"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}}
        limit = wanted.concurrency_limit
        self.fields: dict[str, Any] = {
            "version": code_version(),
            "entrypoint": wanted.entrypoint,
            "description": wanted.description,
            "tags": list(wanted.tags),
            "parameters": wanted.parameters,
            "work_pool_name": wanted.work_pool.name,
            "job_variables": beats,
            "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": str(folder)}}],
            "parameter_openapi_schema": _form_of(flow, list(wanted.form) if wanted.form is not None else None),
            "concurrency_limit": limit.limit if limit else None,
            "concurrency_options": {"collision_strategy": limit.collision_strategy.value} if limit else None,
        }

    @classmethod
    def of(cls, wanted: Deployment, profile: Profile, path: Path) -> _Plan:
        """The plan of one entry of the file.

        Raises:
            ConfigError: There is no such flow, or the form or a parameter is at fault.
        """
        where = f"{path}, deployment {wanted.name}"
        try:
            flow: Flow[..., Any] = load_flow_from_entrypoint(wanted.entrypoint)
        except (PrefectException, ImportError, OSError, ValueError, TypeError) as error:
            found = f"no flow at {wanted.entrypoint} ({type(error).__name__})"
            todo = "Correct it; it is relative to the folder that the command runs in."
            raise ConfigError(where, found, "the entrypoint of a flow, such as flows/retrain.py:retrain", todo) from error
        taken = parameter_schema(flow).properties
        unknown = [name for name in (*(wanted.form or ()), *wanted.parameters) if name not in taken]
        if unknown:
            raise ConfigError(where, f"the parameter {unknown[0]}", f"one of {', '.join(taken)}", "Rename or remove it.")
        check_parameters(flow.fn, wanted.parameters, f"{where}, parameters")
        return cls(wanted, flow, identity_of(path), profile)

    def differing(self, found: DeploymentResponse) -> list[str]:
        """The fields in which the server's deployment is another one."""
        return [key for key, value in self.fields.items() if value != _present(found, key)]

    def schedules(self, found: DeploymentResponse | None) -> tuple[list[DeploymentScheduleCreate], list[str]]:
        """The schedules that the deployment is to have, and what is kept against the file, in words.

        Whoever spoke last decides on and off: the file where it differs from what it said before, else the server.
        """
        on_server = {one.slug: one.active for one in found.schedules} if found else {}
        before: dict[str, bool] = _label(found, SCHEDULES, {})
        kept, notes = [], []
        for one in self.wanted.schedules:
            active = one.active
            if found is not None and before.get(one.slug, one.active) == one.active:
                if one.slug in on_server:
                    active = on_server[one.slug]
                elif one.slug in before:
                    notes.append(f"schedule {one.slug} away, as it was removed on the server")
                    continue
            if active != one.active:
                notes.append(f"schedule {one.slug} {'on' if active else 'off'}, as it was turned on the server")
            kept.append(DeploymentScheduleCreate(slug=one.slug, active=active, schedule=one.at()))
        return kept, notes

    def labels(self, found: DeploymentResponse | None) -> dict[str, str]:
        """The labels to write: the files that have this deployment, and how this one has its schedules."""
        known: list[str] = _label(found, FILES, [])
        files = sorted({*known, self.file})
        asked = {one.slug: one.active for one in self.wanted.schedules}
        return {FILES: json.dumps(files), SCHEDULES: json.dumps(asked, sort_keys=True)}


def _ensure_deployment(client: SyncPrefectClient, plan: _Plan) -> Iterator[Change]:
    """Creates a deployment or, where a field differs, writes it anew; the names of those fields are told."""
    for _ in range(_ATTEMPTS):
        found = _read(client.read_deployment_by_name, plan.name)
        schedules, notes = plan.schedules(found)
        labels = plan.labels(found)
        differing = []
        if found is not None:
            differing = plan.differing(found)
            differing += ["schedules"] if _told(schedules) != _told(found.schedules) else []
            differing += ["files"] if any(found.labels.get(key) != value for key, value in labels.items()) else []
        if found is None or differing:
            try:
                _write(client, client.create_flow(plan.flow), plan.wanted.name, plan.fields, schedules, labels)
            except ObjectAlreadyExists:
                continue  # another command wrote it at the same moment: what differs from that is written
        word = "created" if found is None else "changed" if differing else "as it was"
        yield word, f"deployment {plan.name}" + (f" ({', '.join(differing)})" if differing else "")
        yield from (("stays", f"deployment {plan.name}: {note}") for note in notes)
        if found is not None and found.paused:
            yield "stays", f"deployment {plan.name} paused: {resume_command(found)}"
        return
    raise PerennialError(f"deployment {plan.name}", "other writers", "this one alone for a moment", "Run again.")


def resume_command(deployment: DeploymentResponse) -> str:
    """What lets a paused deployment run again; no other command of Prefect does."""
    return f"prefect api POST /deployments/{deployment.id}/resume_deployment"


def _write(
    client: SyncPrefectClient,
    flow_id: Any,
    name: str,
    fields: dict[str, Any],
    schedules: list[DeploymentScheduleCreate],
    labels: dict[str, str],
) -> None:
    """Writes a deployment whole; the client's own method knows no labels.

    Raises:
        ObjectAlreadyExists: Another writer was at it.
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


def _refuse_what_is_others(planned: list[_Plan], present: dict[str, DeploymentResponse | None]) -> None:
    """Refuses, before anything is written, to replace a deployment that another file deployed differently."""
    for plan in planned:
        found = present[plan.name]
        files: list[str] = _label(found, FILES, [])
        others = [file for file in files if file != plan.file]
        differing = plan.differing(found) if found else []
        if others and set(differing) - {"version"}:
            raise ConfigError(
                f"{plan.file}, deployment {plan.name}",
                f"one of that name from {', '.join(others)}, with another {' and '.join(differing)}",
                "a name of its own, or the same deployment in both files",
                "Rename it here, or deploy with --take-over where this file replaces that one.",
            )


def _settle_gone(client: SyncPrefectClient, file: str, wanted: set[str], *, prune: bool) -> Iterator[Change]:
    """Names, or removes, what came from this file and is no longer in it; what another file has too stays."""
    with prefect_errors("deployments"):
        flows = {one.id: one.name for one in every(lambda limit, offset: client.read_flows(limit=limit, offset=offset))}
        found = list(every(lambda limit, offset: client.read_deployments(limit=limit, offset=offset)))
    for one in sorted(found, key=lambda one: str(one.name)):
        name = f"{flows.get(one.flow_id, one.flow_id)}/{one.name}"
        files: list[str] = _label(one, FILES, [])
        if file not in files or name in wanted:
            continue
        others = [other for other in files if other != file]
        if not prune:
            yield "gone", f"deployment {name} is no longer in {file}; `perennial deploy --prune` removes it"
            continue
        with prefect_errors(f"deployment {name}"):
            if others:
                fields = {key: _present(one, key) for key in _KEPT}
                labels = {**_own_labels(one), FILES: json.dumps(others)}
                schedules = [
                    DeploymentScheduleCreate(slug=plan.slug, active=plan.active, schedule=plan.schedule)
                    for plan in one.schedules
                ]
                _write(client, one.flow_id, one.name, fields, schedules, labels)
                yield "changed", f"deployment {name} (files): it stays for {', '.join(others)}"
            else:
                _read(client.delete_deployment, one.id)
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
    """A field of the server's deployment in the form in which it is written."""
    if key == "concurrency_limit":
        return found.global_concurrency_limit.limit if found.global_concurrency_limit else None
    if key == "concurrency_options":
        options = found.concurrency_options
        return {"collision_strategy": options.collision_strategy.value} if options else None
    return getattr(found, key)


def _told(schedules: list[Any]) -> list[tuple[Any, ...]]:
    """Schedules in a comparable form."""
    found = [
        (one.slug, getattr(one.schedule, "cron", None), getattr(one.schedule, "timezone", None), one.active)
        for one in schedules
    ]
    return sorted(found, key=str)


def _own_labels(found: DeploymentResponse) -> dict[str, Any]:
    return {key: found.labels[key] for key in (FILES, SCHEDULES) if key in found.labels}


def _label(found: DeploymentResponse | None, key: str, absent: T) -> T:
    """What an earlier command left on a deployment; ``absent`` where it left nothing that can be read."""
    text = (found.labels or {}).get(key) if found is not None else None
    try:
        value = json.loads(str(text)) if text is not None else absent
    except ValueError:
        return absent
    return value if isinstance(value, type(absent)) else absent


def deployed_schedules(deployment: DeploymentResponse) -> dict[str, bool]:
    """Whether each schedule was active in the file that it was deployed from, by slug."""
    return _label(deployment, SCHEDULES, {})


def _read(ask: Callable[..., T], *arguments: Any) -> T | None:
    """The answer, or None where the server has no such thing."""
    try:
        return ask(*arguments)
    except ObjectNotFound:
        return None
    except httpx.HTTPStatusError as error:  # of some calls the client does not translate it
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise
        return None


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
