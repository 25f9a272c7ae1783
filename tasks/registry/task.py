"""The registry as Prefect tasks. What acts is never cached, and acts under the model's lock."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, VariableCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.concurrency.sync import concurrency
from prefect.context import TaskRunContext
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectAlreadyExists, ObjectNotFound
from prefect.flow_runs import resume_flow_run

from tasks.contracts.evaluation import PromotionDecision
from tasks.contracts.pruning import OldVersions
from tasks.contracts.references import DatasetRef
from tasks.contracts.registry import Approval, Champion, ChampionEvent, PromotionRecord, RegisteredVersion, RollbackPlan
from tasks.contracts.run import RunFindings
from tasks.core.ensuring import AlreadyThereError, ensure
from tasks.core.errors import ClosedQuestionError, NothingToGoBackToError, RegistryError
from tasks.core.progress import report_progress
from tasks.core.quarantine import artifact_key
from tasks.core.stage import stage_task
from tasks.core.storage import open_store, run_store
from tasks.registry.approval import Answer, Terms
from tasks.registry.config import RegistryConfig
from tasks.tracking import connect, is_served, registry_errors

if TYPE_CHECKING:
    from tasks.registry.live import Traffic

logger = logging.getLogger(__name__)

INSTALLATION = "perennial_installation"
"""Prefect variable with the secret of :func:`installation_key`."""


@stage_task("claim_names", cached=False, patient=True)
def claim_names(config: RegistryConfig, experiment: str) -> None:
    """Makes sure, before anything is spent, that experiment and registered model are this installation's.

    Raises:
        RegistryError: Somebody else made one, or may edit it; or MLflow does not answer.
    """
    with report_progress("claim_names", 1, "names") as progress:
        if is_served():
            claim_for(config, experiment)
        progress.finish(f"{config.registered_name} is this installation's")


def claim_for(config: RegistryConfig, experiment: str, *, adopt: bool = False) -> dict[str, bool]:
    """Whether experiment and registered model were made now (:func:`tasks.registry.ownership.claim`). A plain function."""
    from tasks.registry.ownership import Names, claim

    names = Names(experiment, config.registered_name, config.accounts)
    return claim(connect(), names, installation_key(), adopt=adopt)


def installation_key() -> str:
    """The secret that this installation's marks are made with: a variable on its Prefect server, which all runs share."""
    with get_client(sync_client=True) as client:
        variable, _ = ensure(
            f"variable {INSTALLATION}",
            lambda: client.read_variable_by_name(INSTALLATION),
            lambda: client.create_variable(VariableCreate(name=INSTALLATION, value=secrets.token_hex(16))),
            ObjectAlreadyExists,
        )
    return str(variable.value)


@stage_task("find_champion", cached=False, patient=True)
def find_champion(config: RegistryConfig) -> Champion | None:
    """The champion with what is needed to benchmark it again, brought into the run's store; None while there is none.

    Raises:
        RegistryError: MLflow does not answer, or the alias points to a version that Perennial did not register.
        IntegrityError: Neither store nor registry has the champion's files as they were judged.
    """
    from tasks.registry.recovery import recover_champion
    from tasks.registry.versions import champion_of

    with report_progress("find_champion", 1, "models") as progress:
        champion = champion_of(connect(), config.registered_name)
        if champion is None:
            progress.finish("none yet")
            return None
        fetched = recover_champion(connect(), champion, run_store())
        progress.finish(f"version {champion.version.version}" + (", fetched from the registry" if fetched else ""))
    return champion


@stage_task("find_champion_rows", cached=False, patient=True)
def find_champion_rows(config: RegistryConfig, store_uri: str) -> DatasetRef | None:
    """The rows that the reigning champion learned from; None while none reigns, or where this store does not hold them.

    Raises:
        RegistryError: MLflow does not answer.
    """
    from tasks.registry.versions import training_rows_of

    with report_progress("find_champion_rows", 1, "models") as progress:
        sha256 = training_rows_of(connect(), config.registered_name)
        rows = open_store(store_uri).find_dataset(sha256) if sha256 else None
        progress.finish(f"{rows.num_rows} rows" if rows else "none")
    return rows


@stage_task("register_candidate", cached=False, patient=True)
def register_candidate(config: RegistryConfig, findings: RunFindings) -> RegisteredVersion:
    """The candidate's version in the registry, with adapter, model card, scores and lineage; the same one every time.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.belonging import remember_registry
    from tasks.registry.versions import Candidate, make_registered_model, register

    name = config.registered_name
    with report_progress("register_candidate", 1, "models") as progress, _lock(config):
        client = connect()
        if is_served():
            claim_for(config, findings.model_name)
        with registry_errors(f"registered model {name}"), suppress(AlreadyThereError):
            make_registered_model(client, name)
        remember_registry(client, name, run_store())
        version = register(client, name, Candidate.of(findings))
        progress.finish(f"{name} version {version.version}")
    logger.info("registry: candidate of %s is %s version %s", findings.run_name, name, version.version)
    return version


@stage_task("promote_champion", cached=False, patient=True)
def promote_champion(config: RegistryConfig, candidate: RegisteredVersion, decision: PromotionDecision) -> PromotionRecord:
    """What became of the candidate: champion when the decision says so, else recorded and nothing moves.

    Raises:
        RegistryError: The champion is no longer the one that the candidate was judged against, or MLflow refuses.
    """
    from tasks.registry.aliases import promote

    terms = Terms(when=config.approval, timeout_hours=config.approval_timeout_hours, flow_run_id=runtime.flow_run.id or None)
    with report_progress("promote_champion", 1, "models") as progress, _lock(config):
        client, now = connect(), _now()
        record = promote(client, config.registered_name, candidate, decision, now, terms, config.rollout)
        progress.finish(f"version {candidate.version} {_became(record)}")
    wake_answered(config)
    _publish(record)
    return record


@stage_task("answer_approval", cached=False, patient=True)
def answer_approval(
    config: RegistryConfig, candidate: RegisteredVersion, judged_against: str | None, answer: Answer
) -> PromotionRecord:
    """What became of a candidate on which a person has decided; the first answer counts.

    An answer that cannot be taken changes nothing and fails nothing: the record says what stands, and why in ``late``.

    Args:
        config: Which registered model.
        candidate: The version in question.
        judged_against: The champion that it was benchmarked against.
        answer: Approve or reject, by whom and why.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.aliases import answer_question, standing

    with report_progress("answer_approval", 1, "models") as progress, _lock(config):
        client, now, name = connect(), _now(), config.registered_name
        try:
            record = answer_question(client, name, candidate, judged_against, answer, now, config.rollout)
        except ClosedQuestionError as error:
            logger.warning("registry: an answer by %s, %s, was not taken: %s", answer.name, answer.verdict, error)
            record = standing(client, name, candidate).model_copy(update={"late": str(error)})
        progress.finish(f"version {candidate.version} {_became(record)}")
    wake_answered(config)
    _publish(record)
    return record


@stage_task("find_way_back", cached=False, patient=True)
def find_way_back(config: RegistryConfig) -> RollbackPlan | str:
    """What a rollback would do now, or why there is nothing to go back to.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    with report_progress("find_way_back", 1, "models") as progress:
        try:
            plan = way_back(config)
        except NothingToGoBackToError as error:
            progress.finish("there is none")
            return str(error)
        progress.finish(f"version {plan.returns} in place of version {plan.leaves}")
    return plan


@stage_task("rollback_champion", cached=False, patient=True)
def rollback_champion(
    config: RegistryConfig, reason: str, by: str | None = None, shown: RollbackPlan | None = None
) -> PromotionRecord:
    """The record of a rollback: ``previous`` is champion again, or the rollout under way is aborted.

    Args:
        config: Which registered model.
        reason: Why.
        by: Who does it.
        shown: What was shown to that person; something else is not done. None does what there is to do.

    Raises:
        RegistryError: There is nothing to go back to, it is not what was shown, or MLflow refuses.
    """
    from tasks.registry.aliases import roll_back

    with report_progress("rollback_champion", 1, "models") as progress, _lock(config):
        record = roll_back(connect(), config.registered_name, reason, _now(), by, shown)
        progress.finish(f"version {record.champion_version} has all the traffic")
    wake_answered(config)
    _publish(record)
    return record


@stage_task("check_registry", cached=False, patient=True)
def check_registry(store_uri: str) -> str:
    """Why this registry cannot say what the store is needed for; empty where it can.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.belonging import why_unknown

    with report_progress("check_registry", 1, "registries") as progress:
        reason = why_unknown(connect(), open_store(store_uri))
        progress.finish(reason or "the store's own")
    return reason


@stage_task("find_old_versions", cached=False, patient=True)
def find_old_versions(config: RegistryConfig, keep_versions: int, keep_days: float) -> OldVersions:
    """The versions of a model that may go, and what all others need; see :func:`tasks.registry.retention.old_versions`.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.retention import old_versions

    with report_progress("find_old_versions", 1, "models") as progress:
        found = old_versions(connect(), config.registered_name, keep_versions, keep_days, dt.datetime.now(dt.UTC))
        progress.finish(f"{len(found.removable)} versions may go")
    return found


@stage_task("remove_old_versions", cached=False, patient=True)
def remove_old_versions(config: RegistryConfig, found: OldVersions, keep_versions: int, keep_days: float) -> OldVersions:
    """The versions that it deleted, all looked at again under the model's lock, and what those that are left need.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.retention import old_versions, remove_versions

    client, name, now = connect(), config.registered_name, dt.datetime.now(dt.UTC)
    with report_progress("remove_old_versions", len(found.removable), "versions") as progress, _lock(config):
        removed = remove_versions(client, name, found.removable, keep_versions, keep_days, now)
        left = old_versions(client, name, keep_versions, keep_days, now)
        progress.finish(f"{len(removed)} deleted")
    logger.info("registry: deleted %d old versions of %s", len(removed), name)
    return left.model_copy(update={"removable": removed})


def champion_history(config: RegistryConfig) -> tuple[ChampionEvent, ...]:
    """Every change of champion, oldest first. A plain function: it reads and needs no run."""
    from tasks.registry.journal import history

    return history(connect(), config.registered_name)


def way_back(config: RegistryConfig) -> RollbackPlan:
    """What a rollback would do now. A plain function.

    Raises:
        NothingToGoBackToError: The champion replaced no other.
        RegistryError: MLflow refuses or does not answer.
    """
    from tasks.registry.aliases import plan_rollback

    with _lock(config):
        return plan_rollback(connect(), config.registered_name)


def open_question(config: RegistryConfig, candidate: RegisteredVersion) -> Approval | None:
    """The question about a candidate that nobody has answered; None where there is none. A plain function."""
    from tasks.registry.aliases import standing

    asked = standing(connect(), config.registered_name, candidate).approval
    return asked if asked is not None and asked.verdict is None else None


def change_rollout(config: RegistryConfig, change: Callable[[Any, str], Traffic]) -> Traffic:
    """Who serves after a change of the rollout, made under the model's lock. A plain function.

    Args:
        config: Which registered model.
        change: One of :mod:`tasks.registry.live`, given MLflow's client and the model's name.

    Raises:
        InputError: There is no champion.
        RegistryError: MLflow refuses or does not answer.
        RolloutError: What ``change`` raises.
    """
    name = config.registered_name
    with _lock(config), registry_errors(f"registered model {name}"):
        traffic = change(connect(), name)
    wake_answered(config)
    return traffic


def wake_answered(config: RegistryConfig) -> None:
    """Sends on every suspended run whose question has an answer, or was withdrawn; it then ends with what stands.

    A run that asks a person is suspended until its form is answered. The question can be answered elsewhere, and outdated
    by another champion; whoever did that, or whoever comes next after a kill, wakes the run.
    """
    from tasks.registry.journal import asked_versions

    with registry_errors(f"registered model {config.registered_name}"):
        waiting = {
            UUID(one): asked
            for _, asked in asked_versions(connect(), config.registered_name)
            if asked.verdict is not None
            for one in (asked.flow_run_id, *asked.also_waiting)
            if one is not None
        }
    if not waiting:
        return
    paused = FlowRunFilter(
        id=FlowRunFilterId(any_=sorted(waiting)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])),
    )
    with get_client(sync_client=True) as client:
        suspended = [run.id for run in client.read_flow_runs(flow_run_filter=paused)]
    for one in suspended:
        asked = waiting[one]
        # The form wants an answer; what counts is the registry's, which the run reads.
        form = {
            "answer": "approve" if asked.verdict == "approve" else "reject",
            "name": asked.by or "nobody",
            "reason": asked.reason or "The question is closed.",
        }
        with suppress(ObjectNotFound, NotPausedError, FlowPauseTimeout):
            resume_flow_run(one, run_input=form)
            logger.info("registry: the suspended run %s goes on: its question is answered", one)


@contextmanager
def _lock(config: RegistryConfig) -> Iterator[None]:
    """Holds the model's lock across processes and machines: a Prefect concurrency limit of one, made when absent.

    It keeps apart all that share one Prefect API, and no others may write: the model must be this installation's. A holder
    that is killed frees it when its lease runs out.

    Raises:
        RegistryError: Another holder did not end in time, or the registered model is somebody else's.
    """
    name = f"promote-{config.registered_name}"
    with get_client(sync_client=True) as client:

        def look() -> Any:
            with suppress(ObjectNotFound):
                return client.read_global_concurrency_limit_by_name(name)
            return None

        make = GlobalConcurrencyLimitCreate(name=name, limit=1)
        ensure(f"lock {name}", look, lambda: client.create_global_concurrency_limit(make), ObjectAlreadyExists)
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


def _became(record: PromotionRecord) -> str:
    if record.promoted:
        return "is champion"
    if record.rollout_share is not None:
        return f"begins its rollout with {record.rollout_share} % of the traffic"
    waits = record.approval is not None and record.approval.verdict is None
    return "awaits a person's approval" if waits else "is registered and not promoted"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _publish(record: PromotionRecord) -> None:
    logger.info("registry: champion is %s; %s", record.champion_version or "none", record.reason)
    if TaskRunContext.get():
        lines = [
            "| alias | version |",
            "|---|---|",
            f"| champion | {record.champion_version or 'none'} |",
            f"| previous | {record.previous_version or 'none'} |",
            *(
                [f"| rollout, {record.rollout_share} % | {record.candidate.version} |"]
                if record.rollout_share is not None
                else []
            ),
            "",
            record.reason,
        ]
        name = record.candidate.name
        create_markdown_artifact("\n".join(lines), key=artifact_key("champion", name), description=f"Champion of {name}")
