"""`perennial status`: each model now, from its store, the registry and Prefect. A part that is away is named."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.sorting import FlowRunSort
from pydantic import ValidationError

from flows.support.config import RetrainConfig, settings_of
from perennial.operations.deployment import prefect_errors, present_deployments
from perennial.operations.model_files import read_models, readable_models
from tasks.contracts.base import FrozenModel
from tasks.contracts.run import RunEvidence
from tasks.core.errors import ConfigError, PerennialError, RegistryOutageError
from tasks.core.paging import every
from tasks.core.storage import Store
from tasks.dossier.summary import folder_of, latest_of
from tasks.dossier.verdict import Tone, verdict_of
from tasks.registry.approval import is_expired
from tasks.registry.champion_history import champion_tenures
from tasks.registry.journal import versions_with_approval
from tasks.registry.versions import CHAMPION, aliases_of
from tasks.tracking import connect, registry_errors

_NOT_EMPTY = "one file for each model, or a server with deployments of models"


class Decision(FrozenModel):
    """The decision of the last run with a dossier, its main reason, and what its training cost."""

    label: str
    tone: Tone
    sentence: str
    reason: str
    run: str
    cost: float | None = None
    currency: str = ""
    training_hours: float = 0.0


class Question(FrozenModel):
    """An open request for approval; times are ISO 8601 in UTC."""

    version: str
    requested_at: str
    expires_at: str | None


class Production(FrozenModel):
    """The last check of production."""

    status: str
    violated: tuple[str, ...]
    drift: tuple[str, ...]
    window_end: str


class ModelStatus(FrozenModel):
    """One model now; None and empty where there is none, or where the part is in ``away``.

    Attributes:
        name: The model.
        owner: Who answers for it.
        registered_model: Its name in the registry.
        champion: The version that serves.
        champion_since: When it became champion, ISO 8601 in UTC.
        decision: The last decision.
        questions: Open requests for approval.
        expired: Requests that expired without an answer.
        next_run: When the next retrain is scheduled, ISO 8601 in UTC.
        last_run: State of the last retrain that ended, with Prefect's name of the run.
        running: Names of its active runs.
        paused: Deployments and schedules that are turned off on the server.
        production: The last check.
        away: What could not be read, and why.
    """

    name: str
    owner: str | None = None
    registered_model: str = ""
    champion: str | None = None
    champion_since: str | None = None
    decision: Decision | None = None
    questions: tuple[Question, ...] = ()
    expired: tuple[Question, ...] = ()
    next_run: str | None = None
    last_run: str | None = None
    running: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    production: Production | None = None
    away: tuple[str, ...] = ()

    @property
    def has_failed(self) -> bool:
        """Whether the last retrain failed or crashed."""
        return self.last_run is not None and self.last_run.split()[0] in ("Failed", "Crashed", "TimedOut")

    @property
    def concerns(self) -> tuple[str, ...]:
        """What a person should look at, the most urgent first."""
        found = [f"version {one.version} awaits approval" for one in self.questions]
        if self.has_failed:
            found.append(f"the last run is {self.last_run}")
        if self.production is not None and self.production.status == "violated":
            found.append(f"production violates {', '.join(self.production.violated)}")
        found += [f"{one} is off" for one in self.paused]
        return (*found, *self.away)


class FleetStatus(FrozenModel):
    """All models at one time, ISO 8601 in UTC."""

    written_at: str
    models: tuple[ModelStatus, ...]


def read_fleet(paths: Sequence[Path], now: dt.datetime) -> FleetStatus:
    """The status of all models, by name.

    Args:
        paths: Files of models and folders of them; empty takes the models that are deployed on the server.
        now: The time, in UTC.

    Raises:
        ConfigError: A file has faults, or there are no models.
        PerennialError: No files are named, and Prefect does not respond.
    """
    return fleet_of(read_configs(paths), now)


def read_configs(paths: Sequence[Path]) -> list[RetrainConfig]:
    """The configurations of all models; the arguments and errors are those of :func:`read_fleet`."""
    if paths:
        return [model.config for model in read_models(paths)]
    configs, faults = readable_configs(paths)
    if faults:
        raise faults[0]
    return configs


def readable_configs(paths: Sequence[Path]) -> tuple[list[RetrainConfig], list[ConfigError]]:
    """The configurations that have no faults, and the faults of the others; one model's fault is not another's.

    Raises:
        ConfigError: There is no model.
        PerennialError: Prefect does not respond.
    """
    faults: list[ConfigError] = []
    if paths:
        models, faults = readable_models(paths)
        configs = [model.config for model in models]
    else:
        with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
            deployments = _retrains(present_deployments(client))
        configs = list(_configs_of(deployments, faults))
    if not configs and not faults:
        raise ConfigError("the models", "none", _NOT_EMPTY, "Name a folder of models, or run `perennial deploy` first.")
    return configs, faults


def fleet_of(configs: Sequence[RetrainConfig], now: dt.datetime) -> FleetStatus:
    """The status of these models, by name, at a time in UTC."""
    runs = _Runs()
    registry = _Registry(now.isoformat(timespec="seconds"))
    models = [_status(config, runs, registry) for config in sorted(configs, key=lambda one: one.name)]
    return FleetStatus(written_at=now.isoformat(timespec="seconds"), models=tuple(models))


def _status(config: RetrainConfig, runs: _Runs, registry: _Registry) -> ModelStatus:
    away: list[str] = []
    found: dict[str, Any] = {}
    for part, read in (
        ("MLflow", lambda: registry.read(config.registry.registered_name)),
        ("Prefect", lambda: runs.of(config.name)),
        ("the store", lambda: {"decision": _decision(config), "production": _production(config)}),
    ):
        with _noted(part, away):
            found.update(read())
    owner, name = config.operate.owner, config.registry.registered_name
    return ModelStatus(name=config.name, owner=owner, registered_model=name, away=tuple(away), **found)


@contextmanager
def _noted(part: str, away: list[str]) -> Iterator[None]:
    """Turns an explained error inside the block into a note."""
    try:
        yield
    except (ValidationError, KeyError, TypeError):
        away.append(f"{part}: a record of another version of Perennial")
    except (PerennialError, OSError, ValueError) as error:
        found = error.found if isinstance(error, PerennialError) else type(error).__name__
        away.append(f"{part}: {found.splitlines()[0].rstrip(':')}")


# ------------------------------------------------------------------------------------------------------------ the store


def _decision(config: RetrainConfig) -> Decision | None:
    store = _present_store(config)
    run = (store.read_named(latest_of(config.name)) or b"").decode() if store else ""
    data = store.read_named(f"{folder_of(run)}/dossier.json") if store and run else None
    if data is None:
        return None
    evidence = RunEvidence.model_validate_json(data)
    verdict = verdict_of(evidence)
    costs = [result.cost for result in evidence.steps if result.cost is not None]
    return Decision(
        label=verdict.label,
        tone=verdict.tone,
        sentence=verdict.sentence,
        reason=next(iter(evidence.decision.reasons), ""),
        run=run,
        cost=sum(costs) if costs else None,
        currency=evidence.sft.plan.currency,
        training_hours=sum(result.seconds for result in evidence.steps) / 3600,
    )


def _production(config: RetrainConfig) -> Production | None:
    store = _present_store(config)
    data = store.read_named(f"monitoring/{config.name}/latest.json") if store else None
    if data is None:
        return None
    check = json.loads(data)
    drift = [one["name"] for one in check["readings"] if one["signal"] == "drift" and one["violated"]]
    return Production(status=check["status"], violated=check["violated"], drift=tuple(drift), window_end=check["window_end"])


def _present_store(config: RetrainConfig) -> Store | None:
    """The store; None where its folder does not exist yet, so that nothing is made."""
    store = Store(config.store)
    return None if store.local_path is not None and not Path(store.local_path).exists() else store


# --------------------------------------------------------------------------------------------------------- the registry


class _Registry:
    """Champions and requests in MLflow; after the first outage the other models are not tried."""

    def __init__(self, now: str) -> None:
        self._now = now
        self._outage: RegistryOutageError | None = None

    def read(self, name: str) -> dict[str, Any]:
        """The champion and the open requests of a registered model.

        Raises:
            RegistryError: MLflow rejects the call or does not respond.
        """
        if self._outage is not None:
            raise self._outage
        try:
            with registry_errors(f"registered model {name}"):
                client = connect()
                champion = aliases_of(client, name).get(CHAMPION)
                requests = dict(versions_with_approval(client, name))
                tenures = [one for one in champion_tenures(client, name) if one.version == champion]
        except RegistryOutageError as error:
            self._outage = error
            raise
        questions: dict[bool, list[Question]] = {False: [], True: []}
        for version, request in requests.items():
            if request.verdict is None:
                question = Question(version=version, requested_at=request.requested_at, expires_at=request.expires_at)
                questions[is_expired(request, self._now)].append(question)
        return {
            "champion": champion,
            "champion_since": tenures[-1].since if tenures else None,
            "questions": tuple(questions[False]),
            "expired": tuple(questions[True]),
        }


# ------------------------------------------------------------------------------------------------------------- Prefect


_ACTIVE = (StateType.RUNNING, StateType.PENDING, StateType.CANCELLING)
_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)


class _Runs:
    """Deployments and runs of all models, read once; ``fault`` says why that failed."""

    def __init__(self) -> None:
        self.fault: PerennialError | None = None
        self._deployments: dict[str, list[DeploymentResponse]] = {}
        self._next: dict[str, FlowRun] = {}
        self._last: dict[str, FlowRun] = {}
        self._active: list[FlowRun] = []
        try:
            with prefect_errors("the Prefect server"), get_client(sync_client=True) as client:
                self._read(client)
        except PerennialError as error:
            self.fault = error

    def _read(self, client: SyncPrefectClient) -> None:
        self._deployments = _retrains(present_deployments(client))
        active = _runs_in(*_ACTIVE)
        by_start = FlowRunSort.EXPECTED_START_TIME_ASC
        self._active = list(
            every(
                lambda limit, offset: client.read_flow_runs(
                    flow_run_filter=active, sort=by_start, limit=limit, offset=offset
                )
            )
        )
        # One of each model, however many have ended in the years before.
        for model, deployments in self._deployments.items():
            for found, states, order in (
                (self._next, (StateType.SCHEDULED,), by_start),
                (self._last, _ENDED, FlowRunSort.END_TIME_DESC),
            ):
                own = _runs_in(*states, deployments=deployments)
                found.update((model, run) for run in client.read_flow_runs(flow_run_filter=own, sort=order, limit=1))

    def of(self, model: str) -> dict[str, Any]:
        """The runs of a model.

        Raises:
            PerennialError: Prefect did not respond.
        """
        if self.fault is not None:
            raise self.fault
        deployments = self._deployments.get(model, [])
        own = {deployment.id for deployment in deployments}
        first, last = self._next.get(model), self._last.get(model)
        off = [f"deployment retrain/{one.name}" for one in deployments if one.paused]
        off += [
            f"schedule {schedule.slug} of retrain/{one.name}"
            for one in deployments
            for schedule in one.schedules
            if not schedule.active
        ]
        start = first.expected_start_time if first else None
        return {
            "next_run": start.isoformat(timespec="seconds") if start else None,
            "last_run": f"{last.state_name} ({last.name})" if last else None,
            "running": tuple(run.name for run in self._active if run.deployment_id in own),
            "paused": tuple(off),
        }


def _retrains(deployments: Mapping[str, DeploymentResponse]) -> dict[str, list[DeploymentResponse]]:
    """The deployments that retrain, by their model."""
    found: dict[str, list[DeploymentResponse]] = {}
    for name, deployment in deployments.items():
        model = model_of(deployment)
        if model is not None and name.startswith("retrain/"):
            found.setdefault(model, []).append(deployment)
    return found


def _configs_of(
    deployments: Mapping[str, Sequence[DeploymentResponse]], faults: list[ConfigError]
) -> Iterator[RetrainConfig]:
    """The configurations of the deployed models; a configuration of another version is a fault."""
    for model, of_model in deployments.items():
        config = next((one.parameters["config"] for one in of_model if "config" in one.parameters), None)
        if config is not None:
            try:
                yield settings_of(config, RetrainConfig, f"the deployed configuration of {model}")
            except ConfigError as error:
                faults.append(error)


def _runs_in(*states: StateType, deployments: Sequence[DeploymentResponse] | None = None) -> FlowRunFilter:
    """The runs in these states, of these deployments or of all."""
    ids = None if deployments is None else FlowRunFilterDeploymentId(any_=[one.id for one in deployments])
    return FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))), deployment_id=ids)


def model_of(one: DeploymentResponse | FlowRun) -> str | None:
    """The model whose configuration a deployment or a run has."""
    config = (one.parameters or {}).get("config")
    return str(config["name"]) if isinstance(config, dict) and "name" in config else None
