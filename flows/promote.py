"""From a decision to the registry: register the candidate, move the aliases or leave them, write the dossier."""

from __future__ import annotations

from prefect import flow

from tasks import dossier, registry
from tasks.contracts import RetrainOutcome, RunEvidence, RunFindings


@flow(name="promote", persist_result=True, result_serializer="json", flow_run_name="promote-{findings.run_name}")
def promote_candidate(
    findings: RunFindings, registration: registry.RegistryConfig, page: dossier.DossierConfig
) -> RetrainOutcome:
    """The outcome of a run; when the decision says no, that is recorded and no alias moves.

    Args:
        findings: Everything that the run found out, the decision included.
        registration: How the version is registered.
        page: How the dossier is written.
    """
    candidate = registry.register_candidate(registration, findings)
    record = registry.promote_champion(registration, candidate, findings.decision)
    evidence = RunEvidence.of(findings, candidate, record)
    written = dossier.write_dossier(evidence, page)
    return RetrainOutcome(run_name=findings.run_name, decision=findings.decision, promotion=record, dossier=written)
