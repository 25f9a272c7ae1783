"""How a person's word reaches the registry: through the form of a run that waits, or through the command.

Both give the same answer to the same question, which stands in the version's tags; the first one counts.
"""

from __future__ import annotations

import datetime as dt
from typing import Literal
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.deployments import run_deployment
from prefect.exceptions import FlowPauseTimeout, NotPausedError, ObjectNotFound
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.input import RunInput
from pydantic import Field, ValidationError

from flows.evidence_store import open_evidence_store
from tasks import dossier, registry
from tasks.contracts import PromotionRecord, RetrainOutcome, RunEvidence, RunFindings
from tasks.errors import InputError

PROMOTE_DEPLOYMENT = "promote/promote"


class ApprovalForm(RunInput):
    """What Prefect's page asks; the name is the approver's own statement."""

    answer: Literal["approve", "reject"] = Field(description="Whether the candidate becomes champion.")
    name: str = Field(min_length=1, max_length=100, description="Who decides.")
    reason: str = Field(min_length=1, max_length=1000, description="Why; kept with the version and in the dossier.")


# ----------------------------------------------------------------------------------------------------- a run that waits


def hand_over(
    store_uri: str, findings: RunFindings, registration: registry.RegistryConfig, page: dossier.DossierConfig
) -> RetrainOutcome | None:
    """Starts the deployment ``promote/promote`` and leaves the rest to it; None where there is no such deployment.

    It is no child of this run: a child may not suspend itself, and this run must not wait for a person. The same run,
    started again after a kill, finds the run that it had started.
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
    )
    return RetrainOutcome(
        run_name=findings.run_name, decision=findings.decision, promotion=None, dossier=None, promoted_by=name
    )


def should_wait(record: PromotionRecord) -> bool:
    """Whether this run suspends itself: a person was asked, and the run has a deployment that can go on with it later.

    After the answer the run starts from its top, with the stages before the question kept: the record still says "asked".
    """
    context = FlowRunContext.get()
    if record.approval is None or record.approval.verdict is not None or context is None or context.flow_run is None:
        return False
    return context.flow_run.deployment_id is not None and context.flow_run.parent_task_run_id is None


def wait_for_answer(evidence: RunEvidence) -> registry.Answer:
    """The answer given in the form; until then the run is suspended and holds no slot of any pool."""
    from tasks.dossier.verdict import verdict_of

    asked = evidence.promotion.approval
    assert asked is not None
    seconds = None
    if asked.expires_at is not None:
        left = dt.datetime.fromisoformat(asked.expires_at) - dt.datetime.now(dt.UTC)
        seconds = max(1, int(left.total_seconds()))
    lines = [
        f"## May version {evidence.candidate.version} of {evidence.candidate.name} become champion?",
        verdict_of(evidence).sentence,
        *(f"- {reason}" for reason in evidence.decision.reasons),
    ]
    form = suspend_flow_run(ApprovalForm.with_initial_data(description="\n\n".join(lines)), timeout=seconds, key="approval")
    return registry.Answer(verdict=form.answer, name=form.name, reason=form.reason)


# ---------------------------------------------------------------------------------------------------------- the command


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
    """Answers the question that a run left open, and writes it into the run's dossier.

    Args:
        store_uri: The store that the run wrote to.
        run: The run's name, or ``latest``.
        answer: Approve or reject, by whom and why.

    Returns:
        What became of the candidate, and whether a suspended run goes on with the same answer: it then writes the dossier.

    Raises:
        InputError: There is no such run, or its question is not open.
        IntegrityError: The store has lost what the run found; nothing was changed.
        RegistryError: The champion is no longer the one that the candidate was judged against, or MLflow refuses.
    """
    from tasks.dossier.summary import read_record

    evidence = RunEvidence.model_validate(read_record(store_uri, run))
    open_evidence_store(evidence, store_uri)
    registration = registry.RegistryConfig.model_validate(
        {**evidence.settings.get("registry", {}), "model_name": evidence.candidate.name}
    )
    record = registry.answer_approval.fn(registration, evidence.candidate, evidence.decision.champion_version, answer)
    asked = evidence.promotion.approval
    resumed = asked is not None and asked.flow_run_id is not None and _resume(asked.flow_run_id, record)
    if not resumed:
        page = dossier.DossierConfig.model_validate(evidence.settings.get("dossier", {}))
        dossier.write_dossier.fn(evidence.model_copy(update={"promotion": record}), page, latest=False)
    return record, resumed


def _resume(flow_run_id: str, record: PromotionRecord) -> bool:
    """Whether the run was suspended and goes on with the registry's answer."""
    answered = record.approval
    if answered is None or answered.verdict is None:
        return False
    form = {"answer": answered.verdict, "name": answered.by, "reason": answered.reason}
    try:
        resume_flow_run(UUID(flow_run_id), run_input=form)
    except (ObjectNotFound, NotPausedError, FlowPauseTimeout):
        return False
    return True
