"""Brings a manual approval to the registry, from the form of a suspended run or from the command line.

Both answer the same request, which is kept in the version's tags; the first answer counts.
"""

from __future__ import annotations

import datetime as dt
from http import HTTPStatus
from typing import Literal, TypeVar
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.input.run_input import keyset_from_base_key
from pydantic import Field, ValidationError

from flows.support.evidence_store import open_evidence_store
from tasks import dossier, registry
from tasks.contracts.registry import PromotionRecord
from tasks.contracts.run import RetrainOutcome, RunEvidence, RunFindings
from tasks.core.errors import ClosedQuestionError, InputError
from tasks.core.typed_text import Name, Reason
from tasks.registry.approval import describe_approval

PROMOTE_DEPLOYMENT = "promote/promote"
_KEY = "approval"
Form = TypeVar("Form", bound=RunInput)


class ApprovalForm(RunInput):
    """The form in Prefect's UI; the approver states the name."""

    answer: Literal["approve", "reject"] = Field(description="Whether the candidate becomes champion.")
    name: Name = Field(description="Who decides.")
    reason: Reason = Field(description="Why; recorded with the version and in the dossier.")


# ----------------------------------------------------------------------------------------------------- a suspended run


def hand_over(
    store_uri: str, findings: RunFindings, registration: registry.RegistryConfig, page: dossier.DossierConfig
) -> RetrainOutcome | None:
    """Starts the deployment ``promote/promote``, which does the rest; None if there is no such deployment.

    The new run is no child of this one: a child cannot suspend itself, and this run must not wait for a person. This run,
    restarted after a kill, finds the run that it had started.
    """
    try:
        with get_client(sync_client=True) as client:
            client.read_deployment_by_name(PROMOTE_DEPLOYMENT)
    except ObjectNotFound:
        return None
    name = f"promote-{findings.run_name}"
    run_deployment(
        PROMOTE_DEPLOYMENT,
        flow_run_name=name,
        parameters={
            "store_uri": store_uri,
            "findings": findings.model_dump(mode="json"),
            "registration": registration.model_dump(mode="json"),
            "page": page.model_dump(mode="json"),
        },
        idempotency_key=f"{name}-{runtime.flow_run.id}",
        timeout=0,
        as_subflow=False,
        tags=[f"model:{findings.model_name}"],  # all models share the deployment
    )
    return RetrainOutcome(
        run_name=findings.run_name, decision=findings.decision, promotion=None, dossier=None, promoted_by=name
    )


def should_wait(record: PromotionRecord) -> bool:
    """Whether this run suspends itself: an approval request is open, and the run's deployment can resume it.

    A resumed run starts from the top and reuses finished stages, so its record still shows the open request.
    """
    return record.approval is not None and record.approval.verdict is None and can_suspend()


def can_suspend() -> bool:
    """Whether this run has a deployment that can resume it, and is no child of another run."""
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run is not None and run.deployment_id is not None and run.parent_task_run_id is None


def wait(form: type[Form], lines: list[str], key: str, seconds: int | None = None) -> Form:
    """The completed form; until then the run is suspended and holds no slot of any pool.

    Args:
        form: The form to show.
        lines: Paragraphs in Markdown, shown above the form.
        key: Identifies the form within the run.
        seconds: The run fails after this time; None takes Prefect's default.
    """
    return suspend_flow_run(form.with_initial_data(description="\n\n".join(lines)), timeout=seconds, key=key)


def wait_for_answer(evidence: RunEvidence) -> registry.Answer:
    """The answer given in the form; until then the run is suspended and holds no slot of any pool."""
    from tasks.dossier.verdict import verdict_of

    request = evidence.promotion.approval
    assert request is not None
    seconds = None
    if request.expires_at is not None:
        left = dt.datetime.fromisoformat(request.expires_at) - dt.datetime.now(dt.UTC)
        seconds = max(1, int(left.total_seconds()))
    lines = [
        f"## May version {evidence.candidate.version} of {evidence.candidate.name} become champion?",
        verdict_of(evidence).sentence,
        *(f"- {reason}" for reason in evidence.decision.reasons),
    ]
    form = wait(ApprovalForm, lines, _KEY, seconds)
    return registry.Answer(verdict=form.answer, name=form.name, reason=form.reason)


def answer_on_page(flow_run_id: str) -> registry.Answer | None:
    """The answer in the form of a run, whether or not the run has read it yet."""
    keys = keyset_from_base_key(f"suspended-{_KEY}")
    try:
        with get_client(sync_client=True) as client:
            response = client.read_flow_run_input(UUID(flow_run_id), keys["response"])
    except ObjectNotFound:
        return None
    except PrefectHTTPStatusError as error:
        if error.response.status_code == HTTPStatus.NOT_FOUND:
            return None
        raise
    form = ApprovalForm.model_validate_json(response)
    return registry.Answer(verdict=form.answer, name=form.name, reason=form.reason)


# ---------------------------------------------------------------------------------------------------------- the command line


def read_answer(verdict: Literal["approve", "reject"], name: str, reason: str) -> registry.Answer:
    """An answer given on the command line.

    Raises:
        InputError: Name or reason is empty or too long.
    """
    try:
        return registry.Answer(verdict=verdict, name=name, reason=reason)
    except ValidationError as error:
        fields = " and ".join(f"--{fault['loc'][0]}" for fault in error.errors())
        raise InputError(
            fields, "empty or too long", "who decides (100 characters) and why (1000)", "State both."
        ) from error


def answer_run(store_uri: str, run: str, answer: registry.Answer) -> tuple[PromotionRecord, bool]:
    """Answers the open approval request of a run, and writes the answer into the run's dossier.

    Args:
        store_uri: The store that the run wrote to.
        run: The run's name, or ``latest``.
        answer: Approve or reject, by whom and why.

    Returns:
        The promotion record, and whether a suspended run resumes with the same answer and writes the dossier.

    Raises:
        ClosedQuestionError: The request is closed; the error names who answered first, and how.
        InputError: There is no such run.
        IntegrityError: The store has lost evidence of the run; nothing was changed.
        RegistryError: MLflow rejects the call or does not respond.
    """
    from tasks.dossier.summary import read_record

    evidence = RunEvidence.model_validate(read_record(store_uri, run))
    open_evidence_store(evidence, store_uri)
    registration = registry.RegistryConfig.model_validate(
        {**evidence.settings.get("registry", {}), "model_name": evidence.candidate.name}
    )
    against, run_ids = evidence.decision.champion_version, _waiting_runs(registration, evidence)
    for earlier in filter(None, map(answer_on_page, run_ids)):  # an answer in a form came first
        registry.answer_approval.fn(registration, evidence.candidate, against, earlier)
    record = registry.answer_approval.fn(registration, evidence.candidate, against, answer)
    if record.late is not None:
        found = describe_approval(record.approval) if record.approval else "no approval request"
        raise ClosedQuestionError(
            f"run {run}, version {record.candidate.version} of {record.candidate.name}",
            found.rstrip("."),
            "an open approval request",
            f"The first answer counts, and nothing was changed. In detail: {record.late}",
        )
    request = evidence.promotion.approval
    resumed = request is not None and request.flow_run_id is not None and _will_resume(request.flow_run_id)
    if not resumed:
        page = dossier.DossierConfig.model_validate(evidence.settings.get("dossier", {}))
        dossier.write_dossier.fn(evidence.model_copy(update={"promotion": record}), page, latest=False)
    return record, resumed


def _waiting_runs(registration: registry.RegistryConfig, evidence: RunEvidence) -> list[str]:
    """The flow runs that wait for the answer to an open request."""
    request = registry.pending_approval(registration, evidence.candidate)
    return [run_id for run_id in (request.flow_run_id, *request.also_waiting) if run_id] if request else []


def _will_resume(flow_run_id: str) -> bool:
    """Whether the run of the request has not ended: it reads the answer in the registry and writes the dossier."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
    except ObjectNotFound:
        return False
    return state is not None and not state.is_final()
