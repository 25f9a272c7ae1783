"""Section on compliance: the checklist of an auditor, each line with its evidence."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.contracts.preparation import StageReport
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Check, Checks, Section, State
from tasks.dossier.formatting import BIAS_VERDICTS, count, percent, short
from tasks.dossier.report_data import ReportData, sources_of


def compliance_section(evidence: RunEvidence, data: ReportData) -> Section:
    """The compliance checklist."""
    checks = [
        _personal_data_check(evidence),
        _confidential_check(evidence),
        _label_check(evidence, data),
        _bias_check(evidence),
        _format_check(evidence),
        _held_out_check(evidence, data),
        _lineage_check(evidence, data),
    ]
    return Section("compliance", "Compliance", [Checks(checks)])


def _personal_data_check(evidence: RunEvidence) -> Check:
    prepared = [source for _, source in sources_of(evidence)]
    proven = all(source.verification.holds and source.verification.dataset == source.scrub.dataset for source in prepared)
    state: State = "pass" if proven else "fail"
    leaks = sum(source.verification.num_leaks for source in prepared)
    values = sum(sum(source.scrub.entities.values()) for source in prepared)
    recall = prepared[0].verification.canary_recall
    return Check(
        state,
        "Personal data removed",
        f"{count(values)} values replaced; {percent(recall.value or 0)} of {recall.num_samples or 0} canaries caught "
        f"(95\u202f% interval from {percent(recall.low or 0)}), {leaks} found open by independent detectors; "
        f"findings {short(prepared[0].scrub.findings.sha256)}.",
    )


def _confidential_check(evidence: RunEvidence) -> Check:
    prepared = [source for _, source in sources_of(evidence)]
    gated = all("confidential_filtered" in source.dataset.passed for source in prepared)
    removed = sum(source.confidential.num_quarantined + source.confidential.num_dropped for source in prepared)
    findings = short(prepared[0].confidential.findings.sha256)
    return Check(
        "pass" if gated else "fail",
        "Confidential content removed",
        f"{count(removed)} rows with secrets or deny-listed terms removed; findings {findings}.",
    )


def _label_check(evidence: RunEvidence, data: ReportData) -> Check:
    report = evidence.examples.labels
    waiting = sum(counts.get("review", 0) for counts in data.issue_actions.values())
    issues = sum(report.num_issues.values())
    if not report.informative:
        return Check("open", "Labels reviewed", "The audit was not informative on this data; a person must review a sample.")
    if waiting:
        text = f"{count(issues)} issues found, {count(waiting)} of them wait for a person in the review queue."
        return Check("attention", "Labels reviewed", text)
    return Check("pass", "Labels reviewed", f"{count(issues)} issues found, none waits for a person.")


def _bias_check(evidence: RunEvidence) -> Check:
    states: Mapping[str, State] = {
        "no_difference_found": "pass",
        "differences_found": "attention",
        "not_assessable": "open",
    }
    verdict = evidence.examples.bias.verdict
    return Check(states[verdict], "Bias audited", BIAS_VERDICTS[verdict])


def _format_check(evidence: RunEvidence) -> Check:
    reports = [source.validation for _, source in sources_of(evidence)]
    expectations = sum(report.num_expectations for report in reports)
    removed = sum(_num_removed(source.snapshot) + _num_removed(source.validation) for _, source in sources_of(evidence))
    gated = all("validated" in report.dataset.passed for report in reports)
    text = f"{count(expectations)} expectations checked on every row; {count(removed)} unreadable or invalid rows removed."
    return Check("pass" if gated else "fail", "Format validated", text)


def _held_out_check(evidence: RunEvidence, data: ReportData) -> Check:
    report = evidence.examples.decontamination
    fresh = evidence.examples.fresh
    newest = f" and {count(fresh.dataset.num_rows)} fresh ones" if fresh and fresh.dataset else ""
    text = (
        f"{count(evidence.examples.frozen.num_rows)} frozen examples{newest}; {count(_num_removed(report))} rows equal to, "
        f"or near, one of them kept out of training; {count(data.num_leaked_rows)} training rows have the same "
        "text, by an independent count."
    )
    apart = "decontaminated" in report.dataset.passed and not data.num_leaked_rows
    return Check("pass" if apart else "fail", "Test set held out", text)


def _lineage_check(evidence: RunEvidence, data: ReportData) -> Check:
    if data.lineage_fault:
        return Check("fail", "Lineage holds", data.lineage_fault)
    trained, snapshot = short(evidence.sft.dataset.sha256), short(evidence.examples.snapshot.dataset.sha256)
    return Check("pass", "Lineage holds", f"Training rows {trained} descend from snapshot {snapshot} through every gate.")


def _num_removed(report: StageReport) -> int:
    return report.num_quarantined + report.num_dropped
