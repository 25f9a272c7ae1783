"""Applies a decision: registers the candidate, promotes it, requests approval or holds, and writes the dossier.

As its own deployment it may wait days for an approval; no GPU is held meanwhile.
"""

from __future__ import annotations

from prefect import flow

from flows.support import approvals
from flows.support.evidence_store import open_evidence_store
from flows.support.outcomes import shown_as_state
from tasks import dossier, registry
from tasks.contracts.run import RetrainOutcome, RunEvidence, RunFindings
from tasks.core.results import CONTRACTS


@flow(name="promote", persist_result=True, result_serializer=CONTRACTS, flow_run_name="promote-{findings.run_name}")
def promote_candidate(
    store_uri: str, findings: RunFindings, registration: registry.RegistryConfig, page: dossier.DossierConfig
) -> RetrainOutcome:
    """The outcome of a run; a rejected candidate is recorded and no alias moves.

    An approval request is written to the registry and the dossier before the run waits for the answer.

    Args:
        store_uri: The store that the run wrote to; if it has moved since, the store of its deployment is used.
        findings: All results of the run, including the decision.
        registration: How the version is registered, and when approval is required.
        page: How the dossier is written.
    """
    open_evidence_store(findings, store_uri)
    findings = findings.model_copy(update={"decision": registry.recall_verdicts(registration, findings)})
    candidate = registry.register_candidate(registration, findings)
    record = registry.promote_champion(registration, candidate, findings.decision, findings.started_by)
    written = dossier.write_dossier(RunEvidence.of(findings, candidate, record), page)
    num_forms = 0
    while approvals.should_wait(record):  # several people may have to approve, and an answer may not count
        num_forms += 1
        evidence = RunEvidence.of(findings, candidate, record)
        for answer in approvals.wait_for_answers(evidence, registration, num_forms):
            # The first answer counts, wherever it was given; the record says if one came too late.
            record = registry.answer_approval(registration, candidate, findings.decision.champion_version, answer)
        written = dossier.write_dossier(RunEvidence.of(findings, candidate, record), page, latest=False)
    outcome = RetrainOutcome(run_name=findings.run_name, decision=findings.decision, promotion=record, dossier=written)
    return shown_as_state(outcome)
