"""The registry as Prefect tasks. None is cached, and those that change a model hold its lock."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, VariableCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.events import emit_event
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectAlreadyExists, ObjectNotFound
from prefect.flow_runs import resume_flow_run

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.pruning import OldVersions
from tasks.contracts.references import DatasetRef
from tasks.contracts.registry import Approval, Champion, PromotionRecord, RegisteredVersion, RollbackPlan, RolloutTick
from tasks.contracts.run import RunFindings
from tasks.contracts.training import BaseLanguageModel, Start
from tasks.core.ensuring import AlreadyThereError, ensure
from tasks.core.errors import ClosedQuestionError, NotAnApproverError, NothingToGoBackToError, RegistryError
from tasks.core.pages import artifact_key
from tasks.core.stage import stage, stage_progress
from tasks.core.storage import open_store, run_store
from tasks.core.typed_text import NAME_CHARACTERS, cut
from tasks.registry.approval import Answer, ApprovalTerms
from tasks.registry.config import RegistryConfig
from tasks.registry.page import alias_table, describe_outcome, describe_tick, tick_table
from tasks.tracking import connect, is_served, registry_errors

_Result = TypeVar("_Result")

logger = logging.getLogger(__name__)

INSTALLATION = "perennial_installation"
"""Prefect variable with the secret of :func:`installation_key`."""

_champion_stage = partial(
    stage,
    cached=False,
    patient=True,
    unit="models",
    page=alias_table,
    title=lambda record: f"Champion of {record.candidate.name}",
    key=lambda record: artifact_key("champion", record.candidate.name),
)


@stage(cached=False, patient=True, unit="names")
def claim_names(config: RegistryConfig, experiment: str) -> None:
    """Makes sure, before anything is spent, that experiment and registered model are this installation's.

    Raises:
        RegistryError: Another installation made one, or an account may edit it that is not named; or MLflow does not answer.
    """
    if is_served():
        claim_for(config, experiment)
    stage_progress().summarize(f"{config.registered_name} is this installation's")


@stage(cached=False, patient=True, unit="models")
def find_champion(config: RegistryConfig) -> Champion | None:
    """The champion with what is needed to benchmark it again, fetched into the run's store; None while there is none.

    Raises:
        RegistryError: MLflow does not answer, or the alias points to a version that Perennial did not register.
        IntegrityError: Neither store nor registry has the champion's files as they were benchmarked.
    """
    from tasks.registry.recovery import recover_champion
    from tasks.registry.versions import champion_of

    client = connect()
    champion = champion_of(client, config.registered_name)
    if champion is None:
        stage_progress().summarize("none yet")
        return None
    fetched = recover_champion(client, champion, run_store())
    stage_progress().summarize(f"version {champion.version.version}" + (", fetched from the registry" if fetched else ""))
    return champion


@stage(cached=False, patient=True, unit="models")
def find_start(
    config: RegistryConfig,
    start_from: Literal["base", "champion"],
    base: BaseLanguageModel,
    rows: DatasetRef,
    frozen: DatasetRef,
) -> Start:
    """What the training starts from: the champion with its adapter in the run's store, or the base model.

    Raises:
        RegistryError: MLflow does not answer, or the alias points to a version that Perennial did not register.
        IntegrityError: Neither store nor registry has the champion's files as they were benchmarked.
    """
    from tasks.registry.recovery import recover_champion
    from tasks.registry.starting import starting_point, with_learned_rows
    from tasks.registry.versions import champion_of

    if start_from == "base":
        return Start()
    client = connect()
    champion = champion_of(client, config.registered_name)
    start = starting_point(client, champion, base, rows, frozen)
    if start.point and champion and start.point.version == champion.version.version:
        recover_champion(client, champion, run_store())
    start = with_learned_rows(client, config.registered_name, start, run_store())
    stage_progress().summarize(start.reason)
    return start


@stage(cached=False, patient=True, unit="models")
def find_champion_rows(config: RegistryConfig, store_uri: str) -> DatasetRef | None:
    """The rows that the champion was trained on; None while there is no champion, or where this store does not hold them.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from tasks.registry.versions import training_rows_of

    sha256 = training_rows_of(connect(), config.registered_name)
    rows = open_store(store_uri).find_dataset(sha256) if sha256 else None
    stage_progress().summarize(f"{rows.num_rows} rows" if rows else "none")
    return rows


@stage(cached=False, patient=True, unit="models")
def recall_verdicts(config: RegistryConfig, findings: RunFindings) -> PromotionDecision:
    """The run's decision, with earlier verdicts on its candidate by other settings; see :mod:`tasks.registry.verdicts`.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.verdicts import with_earlier_verdicts
    from tasks.registry.versions import Candidate, verdicts_on

    candidate = Candidate.of(findings)
    before = verdicts_on(connect(), config.registered_name, candidate)
    decision = with_earlier_verdicts(findings.decision, candidate.question, before)
    stage_progress().summarize(f"{len(before)} earlier verdicts: {decision.outcome}")
    return decision


@stage(cached=False, patient=True, unit="models")
def register_candidate(config: RegistryConfig, findings: RunFindings) -> RegisteredVersion:
    """The candidate's version in the registry, with adapter, model card, scores and lineage; repetition makes no second one.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.store_origin import record_registry
    from tasks.registry.versions import Candidate, make_registered_model, register

    name, client = config.registered_name, connect()
    with _lock(config):
        if is_served():
            claim_for(config, findings.model_name)
        with registry_errors(f"registered model {name}"), suppress(AlreadyThereError):
            make_registered_model(client, name)
        record_registry(client, name, run_store())
        version = register(client, name, Candidate.of(findings))
    stage_progress().summarize(f"{findings.run_name} is {name} version {version.version}")
    return version


@_champion_stage()
def promote_champion(
    config: RegistryConfig, candidate: RegisteredVersion, decision: PromotionDecision, started_by: str | None = None
) -> PromotionRecord:
    """Makes the candidate champion when the decision says so, else records the decision and moves no alias.

    Args:
        config: Which registered model, and the terms of an approval.
        candidate: The version that was evaluated.
        decision: The gate's decision.
        started_by: Who started the run, if a person did.

    Raises:
        RegistryError: The champion is no longer the one that the candidate was compared with, or MLflow refuses.
    """
    from tasks.registry.aliases import promote

    terms = ApprovalTerms(
        when=config.approval,
        timeout_hours=config.approval_timeout_hours,
        flow_run_id=runtime.flow_run.id or None,
        approvers=config.approvers,
        required=config.required_approvals,
        excluded=config.excluded(started_by),
        verified=config.identity is not None,
    )
    with _lock(config):
        record = promote(connect(), config.registered_name, candidate, decision, _now(), terms, config.rollout)
    resume_answered_runs(config)
    stage_progress().summarize(describe_outcome(record))
    return record


@_champion_stage()
def answer_approval(
    config: RegistryConfig, candidate: RegisteredVersion, compared_with: str | None, answer: Answer
) -> PromotionRecord:
    """The record of a candidate after a person's answer; the first answer counts.

    An answer that is not accepted changes nothing and fails nothing: the record holds the reason in ``late``.

    Args:
        config: Which registered model.
        candidate: The version in question.
        compared_with: The champion that it was benchmarked against.
        answer: Approve or reject, by whom and why.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.aliases import current_record, record_answer

    client, name = connect(), config.registered_name
    with _lock(config):
        try:
            record = record_answer(client, name, candidate, compared_with, answer, _now(), config.rollout)
        except (ClosedQuestionError, NotAnApproverError) as error:
            logger.warning("registry: an answer by %s, %s, was not accepted: %s", answer.name, answer.verdict, error)
            record = current_record(client, name, candidate).model_copy(update={"late": str(error)})
    resume_answered_runs(config)
    stage_progress().summarize(describe_outcome(record))
    return record


@stage(cached=False, patient=True, unit="models")
def find_way_back(config: RegistryConfig, to: str | None = None) -> RollbackPlan | str:
    """What a rollback would do now, to the version ``to`` if one is named, or why there is nothing to go back to.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    try:
        plan = read_rollback_plan(config, to)
    except NothingToGoBackToError as error:
        stage_progress().summarize("none")
        return str(error)
    stage_progress().summarize(f"version {plan.returns} in place of version {plan.leaves}")
    return plan


@_champion_stage()
def rollback_champion(
    config: RegistryConfig, reason: str, by: str | None = None, shown: RollbackPlan | None = None
) -> PromotionRecord:
    """The record of a rollback: ``previous`` is champion again, or the rollout in progress is aborted.

    Args:
        config: Which registered model.
        reason: Why.
        by: Who does it.
        shown: The plan that was shown to that person; no other is carried out. None carries out the present plan.

    Raises:
        RegistryError: There is nothing to go back to, the plan is no longer the one that was shown, or MLflow refuses.
    """
    from tasks.registry.aliases import roll_back

    with _lock(config):
        record = roll_back(connect(), config.registered_name, reason, _now(), by, shown)
    resume_answered_runs(config)
    stage_progress().summarize(f"version {record.champion_version} has all the traffic")
    return record


@stage(cached=False, patient=True, unit="registries")
def check_registry(store_uri: str) -> str:
    """Why this registry is not known to be the store's; empty where it is.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.store_origin import unknown_registry_reason

    reason = unknown_registry_reason(connect(), open_store(store_uri))
    stage_progress().summarize(reason or "it is the store's")
    return reason


@stage(cached=False, patient=True, unit="models")
def find_old_versions(config: RegistryConfig, keep_versions: int, keep_days: float) -> OldVersions:
    """The removable versions of a model, and what all others need; see :func:`tasks.registry.retention.old_versions`.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.retention import old_versions

    found = old_versions(connect(), config.registered_name, keep_versions, keep_days, dt.datetime.now(dt.UTC))
    stage_progress().summarize(f"{len(found.removable)} removable versions")
    return found


@stage(cached=False, patient=True, unit="versions")
def remove_old_versions(config: RegistryConfig, old: OldVersions, keep_versions: int, keep_days: float) -> OldVersions:
    """The versions that it deleted, each checked again under the model's lock, and what the remaining ones need.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.retention import old_versions, remove_versions

    client, name, now = connect(), config.registered_name, dt.datetime.now(dt.UTC)
    with _lock(config):
        removed = remove_versions(client, name, old.removable, keep_versions, keep_days, now)
        remaining = old_versions(client, name, keep_versions, keep_days, now)
    stage_progress().summarize(f"{len(removed)} old versions of {name} deleted")
    return remaining.model_copy(update={"removable": removed})


def claim_for(config: RegistryConfig, experiment: str, *, adopt: bool = False) -> dict[str, bool]:
    """Claims both names, see :func:`tasks.registry.ownership.claim`; whether each was made now. A plain function."""
    from tasks.registry.ownership import Names, claim

    names = Names(experiment, config.registered_name, config.accounts)
    return claim(connect(), names, installation_key(), adopt=adopt)


def installation_key() -> str:
    """The secret of this installation's marks: a variable on its Prefect server, which all runs share."""
    with get_client(sync_client=True) as client:
        variable, _ = ensure(
            f"variable {INSTALLATION}",
            lambda: client.read_variable_by_name(INSTALLATION),
            lambda: client.create_variable(VariableCreate(name=INSTALLATION, value=secrets.token_hex(16))),
            ObjectAlreadyExists,
        )
    return str(variable.value)


def read_rollback_plan(config: RegistryConfig, to: str | None = None) -> RollbackPlan:
    """What a rollback would do now, to the version ``to`` if one is named. A plain function.

    Raises:
        NothingToGoBackToError: The champion replaced no other.
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.aliases import plan_rollback

    with _lock(config):
        return plan_rollback(connect(), config.registered_name, to)


def present_approval(config: RegistryConfig, candidate: RegisteredVersion) -> Approval | None:
    """The request for approval of a candidate, open or answered; None where there is none. A plain function."""
    from tasks.registry.aliases import current_record

    return current_record(connect(), config.registered_name, candidate).approval


@stage(
    cached=False,
    patient=True,
    unit="models",
    page=tick_table,
    title=lambda tick: f"Rollout of {tick.name}",
    key=lambda tick: artifact_key("rollout", tick.name),
)
def tick_rollout(config: RegistryConfig, signals: str) -> RolloutTick:
    """One look at the rollout: it advances, waits or is aborted by the counts in a file, and says so in the event feed.

    Raises:
        ConfigError: The rollout watches no signal.
        InputError: There is no champion, or the file cannot be read.
        RegistryError: MLflow refuses or does not answer, or the champion changed since the rollout started.
    """
    tick = look_at_rollout(config, Path(signals))
    emit_event(
        event="perennial.rollout.tick",
        resource={"prefect.resource.id": f"perennial.model.{tick.name}", "prefect.resource.name": tick.name},
        payload={"action": tick.verdict.action, "reason": tick.verdict.reason, "version": tick.version, "share": tick.share},
    )
    stage_progress().summarize(describe_tick(tick))
    return tick


def look_at_rollout(config: RegistryConfig, signals: Path) -> RolloutTick:
    """The same as a plain function, without the event."""
    from tasks.registry.live import tick_rollout as tick
    from tasks.registry.live_signals import read_windows

    windows = read_windows(signals)
    traffic, verdict = change_rollout(config, lambda client, name: tick(client, name, windows, _now()))
    return RolloutTick(
        name=config.registered_name,
        champion=traffic.champion,
        version=traffic.version,
        share=traffic.rollout.share if traffic.rollout else None,
        verdict=verdict,
    )


def change_rollout(config: RegistryConfig, change: Callable[[Any, str], _Result]) -> _Result:
    """Changes the rollout under the model's lock, and returns what the change returns. A plain function.

    Args:
        config: Which registered model.
        change: A function of :mod:`tasks.registry.live` on MLflow's client and the model's name.

    Raises:
        InputError: There is no champion.
        RegistryError: MLflow refuses or does not answer.
        RolloutError: What ``change`` raises.
    """
    name = config.registered_name
    with _lock(config), registry_errors(f"registered model {name}"):
        result = change(connect(), name)
    resume_answered_runs(config)
    return result


def resume_answered_runs(config: RegistryConfig) -> None:
    """Resumes every suspended run whose request has an answer or was withdrawn; the run ends with the present record.

    A run that waits for approval is suspended until its form is answered. The request may be answered elsewhere or withdrawn
    because of another champion; every change of the registry, also the next one after a kill, resumes such runs.
    """
    from tasks.registry.journal import versions_with_approval

    with registry_errors(f"registered model {config.registered_name}"):
        waiting = {
            UUID(run): approval
            for _, approval in versions_with_approval(connect(), config.registered_name)
            if approval.verdict is not None
            for run in (approval.flow_run_id, *approval.also_waiting)
            if run is not None
        }
    if not waiting:
        return
    paused = FlowRunFilter(
        id=FlowRunFilterId(any_=sorted(waiting)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
    )
    with get_client(sync_client=True) as client:
        suspended = [run.id for run in client.read_flow_runs(flow_run_filter=paused)]
    for run in suspended:
        approval = waiting[run]
        # The form requires an answer; the run reads the one in the registry, which counts.
        form = {
            "answer": "approve" if approval.verdict == "approve" else "reject",
            "name": cut(approval.by or "nobody", NAME_CHARACTERS),
            "reason": approval.reason or "The request is closed.",
        }
        with suppress(ObjectNotFound, NotPausedError, FlowPauseTimeout):
            resume_flow_run(run, run_input=form)
            logger.info("registry: the suspended run %s resumes: its request is answered", run)


@contextmanager
def _lock(config: RegistryConfig) -> Iterator[None]:
    """Holds the model's lock across processes and machines: a Prefect concurrency limit of one, made when absent.

    It excludes all processes of one Prefect API; others may not write, because the model must be this installation's. The
    lock of a killed holder is free when its lease ends.

    Raises:
        RegistryError: Another holder did not end in time, or the registered model is not this installation's.
    """
    name = f"promote-{config.registered_name}"
    with get_client(sync_client=True) as client:

        def read_limit() -> Any:
            with suppress(ObjectNotFound):
                return client.read_global_concurrency_limit_by_name(name)
            return None

        make = GlobalConcurrencyLimitCreate(name=name, limit=1)
        ensure(f"lock {name}", read_limit, lambda: client.create_global_concurrency_limit(make), ObjectAlreadyExists)
    from tasks.registry.ownership import check_model

    with ExitStack() as held:
        try:
            lease = concurrency(
                name,
                occupy=1,
                strict=True,
                timeout_seconds=config.lock_timeout_seconds,
                lease_duration=config.lock_lease_seconds,
            )
            held.enter_context(lease)
        except TimeoutError as error:
            raise RegistryError(
                f"lock {name}",
                f"another promotion that did not end within {config.lock_timeout_seconds:.0f} s",
                "a free lock",
                "Wait for it, or raise registry.lock_timeout_seconds.",
            ) from error
        if is_served():
            check_model(connect(), config.registered_name, installation_key())
        yield


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
