"""Brings a manual approval to the registry, from the form of a suspended run or from the command line.

Both answer the same request, which is kept in the version's tags; the first answer counts.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
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
from pydantic import Field, ValidationError

from flows.support.evidence_store import open_evidence_store
from tasks import dossier, registry
from tasks.contracts.registry import Approval, PromotionRecord
from tasks.contracts.run import RetrainOutcome, RunEvidence, RunFindings
from tasks.core.errors import ClosedQuestionError, InputError, NotAnApproverError
from tasks.core.typed_text import Name, Reason
from tasks.registry.approval import describe_approval, fault_of_person, progress_of
from tasks.registry.identity import name_in_token

logger = logging.getLogger(__name__)

PROMOTE_DEPLOYMENT = "promote/promote"
_KEY = "approval"
_MOST_INPUTS = 200
Form = TypeVar("Form", bound=RunInput)


class ApprovalForm(RunInput):
    """The form in Prefect's UI; the approver states the name."""

    answer: Literal["approve", "reject"] = Field(description="Whether the candidate becomes champion.")
    name: Name = Field(description="Who decides.")
    reason: Reason = Field(description="Why; recorded with the version and in the dossier.")


class TokenForm(ApprovalForm):
    """The same form, where the name comes from a signed token."""

    token: str = Field("", max_length=10_000, description="Your signed token; the name in it counts.")


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


def wait_for_answers(evidence: RunEvidence, registration: registry.RegistryConfig, number: int) -> list[registry.Answer]:
    """Every answer given so far in a form for the request, in the order in which they were sent.

    Until this run's form is answered, it is suspended and holds no slot of any pool.

    Args:
        evidence: The run, with its open request.
        registration: How approvers prove who they are.
        number: How many forms this run has shown, this one included.
    """
    from tasks.dossier.verdict import verdict_of

    request = evidence.promotion.approval
    assert request is not None
    seconds = None
    if request.expires_at is not None:
        left = dt.datetime.fromisoformat(request.expires_at) - dt.datetime.now(dt.UTC)
        seconds = max(1, int(left.total_seconds()))
    progress = progress_of(request)
    lines = [
        *([f"**The last answer does not count.** {evidence.promotion.late}"] if evidence.promotion.late else []),
        f"## May version {evidence.candidate.version} of {evidence.candidate.name} become champion?",
        verdict_of(evidence).sentence,
        *(f"- {reason}" for reason in evidence.decision.reasons),
        *([f"{progress[0].upper()}{progress[1:]}."] if progress else []),
    ]
    wait(TokenForm if registration.identity else ApprovalForm, lines, _KEY if number == 1 else f"{_KEY}-{number}", seconds)
    return answers_on_pages([run for run in (request.flow_run_id, *request.also_waiting) if run], registration)


def answers_on_pages(run_ids: list[str], registration: registry.RegistryConfig) -> list[registry.Answer]:
    """The answers in the forms of some runs, first sent first, whether or not a run has read them yet."""
    sent: list[tuple[dt.datetime, registry.Answer]] = []
    with get_client(sync_client=True) as client:
        for run_id in run_ids:
            try:
                inputs = client.filter_flow_run_input(UUID(run_id), f"suspended-{_KEY}", _MOST_INPUTS, set())
            except PrefectHTTPStatusError as error:
                if error.response.status_code == HTTPStatus.NOT_FOUND:
                    continue
                raise
            for given in inputs:
                if not given.key.endswith("-response") or given.created is None:
                    continue
                try:
                    form = TokenForm.model_validate_json(given.value)
                except ValidationError as error:  # Prefect's check of a form is coarser than ours
                    logger.warning(
                        "approval: a form of run %s has %d faults and does not count", run_id, error.error_count()
                    )
                    continue
                sent.append((given.created, _answer_in(form, registration, given.created.timestamp())))
    return [answer for _, answer in sorted(sent, key=lambda each: each[0])]


def _answer_in(form: TokenForm, registration: registry.RegistryConfig, sent_at: float) -> registry.Answer:
    """The answer in a form; a token that is not valid leaves the name a typed one, which then does not count."""
    answer = registry.Answer(verdict=form.answer, name=form.name, reason=form.reason)
    try:
        return _identified(answer, form.token, registration, sent_at)
    except NotAnApproverError as error:
        logger.warning("approval: %s", error)
        return answer


def _identified(answer: registry.Answer, token: str, registration: registry.RegistryConfig, now: float) -> registry.Answer:
    """The answer with the name in a token, where names come from tokens and there is one.

    Raises:
        NotAnApproverError: The token is not valid.
    """
    if registration.identity is None or not token:
        return answer
    return answer.model_copy(update={"name": name_in_token(token, registration.identity, now), "identity": "token"})


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


def answer_run(store_uri: str, run: str, answer: registry.Answer, token: str = "") -> tuple[PromotionRecord, bool]:
    """Answers the open approval request of a run, and writes the answer into the run's dossier.

    Args:
        store_uri: The store that the run wrote to.
        run: The run's name, or ``latest``.
        answer: Approve or reject, by whom and why.
        token: A signed token; where the configuration has names come from tokens, it gives the name.

    Returns:
        The promotion record, and whether a suspended run resumes with the same answer and writes the dossier.

    Raises:
        ClosedQuestionError: The request is closed; the error names who answered first, and how.
        InputError: There is no such run.
        NotAnApproverError: This person may not answer, or the token is not valid; the request stays open.
        IntegrityError: The store has lost evidence of the run; nothing was changed.
        RegistryError: MLflow rejects the call or does not respond.
    """
    from tasks.dossier.summary import read_record

    evidence = RunEvidence.model_validate(read_record(store_uri, run))
    open_evidence_store(evidence, store_uri)
    registration = _registration_of(evidence)
    answer = _identified(answer, token, registration, time.time())
    against, run_ids = evidence.decision.champion_version, _waiting_runs(registration, evidence)
    for earlier in answers_on_pages(run_ids, registration) if run_ids else []:  # an answer in a form came first
        registry.answer_approval.fn(registration, evidence.candidate, against, earlier)
    record = registry.answer_approval.fn(registration, evidence.candidate, against, answer)
    if record.late is not None and record.approval is not None and record.approval.verdict is None:
        refusal = fault_of_person(record.approval, answer.name, answer.identity, answer.verdict)
        if refusal is not None:
            raise NotAnApproverError(f"run {run}, version {record.candidate.version} of {record.candidate.name}", *refusal)
    if record.late is not None:
        found = describe_approval(record.approval) if record.approval else "no approval request"
        raise ClosedQuestionError(
            f"run {run}, version {record.candidate.version} of {record.candidate.name}",
            found.rstrip("."),
            "an open approval request",
            f"The first answer counts, and nothing was changed. In detail: {record.late}",
        )
    request = evidence.promotion.approval
    is_closed = record.approval is not None and record.approval.verdict is not None  # else more people must approve
    resumed = is_closed and request is not None and request.flow_run_id is not None and _will_resume(request.flow_run_id)
    if not resumed:
        page = dossier.DossierConfig.model_validate(evidence.settings.get("dossier", {}))
        dossier.write_dossier.fn(evidence.model_copy(update={"promotion": record}), page, latest=False)
    return record, resumed


def read_request(store_uri: str, run: str) -> tuple[RunEvidence, Approval | None]:
    """A run, and the present request for approval of its candidate with its answer, if there is one.

    Raises:
        InputError: There is no such run.
        RegistryError: MLflow rejects the call or does not respond.
    """
    from tasks.dossier.summary import read_record

    evidence = RunEvidence.model_validate(read_record(store_uri, run))
    return evidence, registry.present_approval(_registration_of(evidence), evidence.candidate)


def _registration_of(evidence: RunEvidence) -> registry.RegistryConfig:
    """The settings of the registry that the run had."""
    settings = {**evidence.settings.get("registry", {}), "model_name": evidence.candidate.name}
    return registry.RegistryConfig.model_validate(settings)


def _waiting_runs(registration: registry.RegistryConfig, evidence: RunEvidence) -> list[str]:
    """The flow runs that wait for the answer to an open request."""
    request = registry.present_approval(registration, evidence.candidate)
    if request is None or request.verdict is not None:
        return []
    return [run_id for run_id in (request.flow_run_id, *request.also_waiting) if run_id]


def _will_resume(flow_run_id: str) -> bool:
    """Whether the run of the request has not ended: it reads the answer in the registry and writes the dossier."""
    try:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(flow_run_id)).state
    except ObjectNotFound:
        return False
    return state is not None and not state.is_final()
