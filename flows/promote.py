"""From a decision to the registry: register the candidate, promote, ask a person or hold, write the dossier.

As a deployment of its own it may wait for a person for days, and no GPU waits with it.
"""

from __future__ import annotations

from prefect import flow

from flows.support import approvals
from flows.support.evidence_store import open_evidence_store
from tasks import dossier, registry
from tasks.contracts.run import RetrainOutcome, RunEvidence, RunFindings
from tasks.core.results import CONTRACTS


@flow(name="promote", persist_result=True, result_serializer=CONTRACTS, flow_run_name="promote-{findings.run_name}")
def promote_candidate(
    store_uri: str, findings: RunFindings, registration: registry.RegistryConfig, page: dossier.DossierConfig
) -> RetrainOutcome:
    """The outcome of a run; when the decision says no, that is recorded and no alias moves.

    A question to a person stands in the registry and in the dossier before anyone waits for its answer.

    Args:
        store_uri: The store that the run wrote to; where it moved meanwhile, that of its deployment serves.
        findings: Everything that the run found out, the decision included.
        registration: How the version is registered, and when a person is asked.
        page: How the dossier is written.
    """
    open_evidence_store(findings, store_uri)
    candidate = registry.register_candidate(registration, findings)
    record = registry.promote_champion(registration, candidate, findings.decision)
    evidence = RunEvidence.of(findings, candidate, record)
    written = dossier.write_dossier(evidence, page)
    if approvals.should_wait(record):
        answer = approvals.wait_for_answer(evidence)
        # The first answer counts, wherever it was given; the record says so where this one came too late.
        record = registry.answer_approval(registration, candidate, findings.decision.champion_version, answer)
        written = dossier.write_dossier(RunEvidence.of(findings, candidate, record), page, latest=False)
    return RetrainOutcome(run_name=findings.run_name, decision=findings.decision, promotion=record, dossier=written)
