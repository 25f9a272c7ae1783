"""Sections on the data: what came in and went out, what the stages found, what was scrubbed, audited and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import PreparedDataset, StageReport
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Check, Checks, Details, Facts, Plot, Row, Section, State, Table, Text
from tasks.dossier.gathering import Gathered
from tasks.dossier.notation import count, decimal, duration, interval, measured, percent, short, signed, words
from tasks.dossier.plots import Step, plot_funnel

STAGE_NAMES = ("Read", "Validate", "Deduplicate", "Confidential", "Scrub", "Audit labels", "Hold out test set")
"""In the order of :attr:`tasks.contracts.preparation.PreparedDataset.stages`."""
_CANARIES = "canary_recall "
_FIGURES = {
    "ingest.malformed": "Malformed lines",
    "deduplication.exact_duplicate": "Exact duplicates",
    "deduplication.near_duplicate": "Near duplicates",
    "confidential.secret": "Secrets",
    "confidential.code_name": "Code names",
    "confidential": "Secrets and code names",
    "pii": "Personal data, values",
    "pii.characters": "Personal data, letters and digits",
    "pii.refused_rows": "Rows that scrubbing refused",
    "labels.wrong_label": "Wrong labels, flagged",
    "labels.wrong_label.automatic": "Wrong labels, acted on",
    "responses": "Bad replies, flagged",
    "responses.swapped": "Swapped replies",
    "responses.truncated": "Truncated replies",
    "responses.garbled": "Garbled replies",
}


# ---------------------------------------------------------------------------------------------------------------- funnel


def funnel_section(evidence: RunEvidence) -> Section:
    """Rows in and out of every stage, with the reasons for those that left."""
    blocks: list[Block] = []
    for title, prepared in _sources(evidence):
        steps = _steps(prepared)
        name = prepared.snapshot.source_uri.rsplit("/", 1)[-1]
        label = f"{title}: rows left after each stage"
        caption = f"{title}, from {name}: rows left after each stage, and rows taken away."
        blocks.append(Row([Plot(plot_funnel(steps, label), caption), _reasons(prepared)]))
    blocks.append(
        Text(
            "Nothing is lost: rows in equal rows out plus these. Refused rows lie in the store's quarantine with their "
            "content and reason, duplicates and held-out rows by their ids."
        )
    )
    return Section("data", "What happened to the rows", blocks, short="Data")


def _sources(evidence: RunEvidence) -> list[tuple[str, PreparedDataset]]:
    sources = [("Examples", evidence.examples)]
    if evidence.mixture:
        further = zip(evidence.mixture.parts[1:], evidence.mixture.prepared, strict=True)
        sources += [(f"Further rows, {part.name}", prepared) for part, prepared in further]
    return sources + ([("Preference pairs", evidence.preferences)] if evidence.preferences else [])


def _steps(prepared: PreparedDataset) -> list[Step]:
    return [
        Step(name, stage.dataset.num_rows, stage.num_quarantined + stage.num_dropped)
        for name, stage in zip(STAGE_NAMES, prepared.stages, strict=True)
    ]


def _reasons(prepared: PreparedDataset) -> Table:
    rows = []
    for name, stage in zip(STAGE_NAMES, prepared.stages, strict=True):
        for number, (reason, rows_left) in enumerate([*stage.quarantined.items(), *stage.dropped.items()]):
            rows.append((Cell("" if number else name), Cell(words(reason)), Cell(count(rows_left))))
    return Table(
        ("Stage", "Why rows left", "Rows"), rows or [(Cell("None"), Cell("No row left"), Cell("0"))], num_text_columns=2
    )


# ------------------------------------------------------------------------------------------------------- measured truth


def truth_section(evidence: RunEvidence) -> Section | None:
    """Precision and recall on planted faults; None when the data has no list of them."""
    figures = {figure.name: figure for figure in evidence.truth.measurements}
    if not figures:
        return None
    bases = dict.fromkeys(name.rsplit(".", 1)[0] for name in figures if name.endswith((".recall", ".precision")))
    rows = [
        (Cell(_FIGURES.get(base, words(base))), *(_share(figures.get(f"{base}.{kind}")) for kind in ("recall", "precision")))
        for base in bases
    ]
    intro = (
        "This data comes with a list of every fault that was planted in it, which no stage sees. Recall is the share of "
        "planted faults that were found, precision the share of what was found that had been planted, each with its "
        "95\u202f% interval and the number it rests on. Rows that an earlier stage removed do not count."
    )
    blocks: list[Block] = [Text(intro), Table(("Fault", "Recall", "Precision"), rows)]
    entities = [figures[name] for name in sorted(figures) if name.startswith("pii.recall.")]
    if entities:
        by_entity = [(Cell(words(figure.name.removeprefix("pii.recall."))), _share(figure)) for figure in entities]
        blocks.append(_in_two_columns(("Personal data by type", "Recall"), by_entity))
    return Section("truth", "What the stages found, measured", blocks, short="Measured")


def _share(figure: Measurement | None) -> Cell:
    if figure is None or figure.value is None:
        return Cell("\u2013")
    note = f"n\u202f=\u202f{count(figure.num_samples or 0)}"
    limits = interval(figure.low, figure.high)
    return Cell(decimal(figure.value), f"{limits}, {note}" if limits else note)


# --------------------------------------------------------------------------------------------------------- personal data


def personal_data_section(evidence: RunEvidence) -> Section:
    """What was scrubbed by entity type, and the canaries' recall."""
    sources = _sources(evidence)
    totals: dict[str, int] = {}
    for _, prepared in sources:
        for entity, number in prepared.scrub.entities.items():
            totals[entity] = totals.get(entity, 0) + number
    top = max(totals.values(), default=1)
    rows = [
        (Cell(words(entity), bar=number / top), Cell(count(number)))
        for entity, number in sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    ]
    verification = evidence.examples.verification
    recall, leaked = verification.canary_recall, verification.num_canaries_leaked
    leaks = sum(prepared.verification.num_leaks for _, prepared in sources)
    caught = sum(prepared.verification.num_rows_caught for _, prepared in sources)
    facts = [
        ("Canaries", f"{count(verification.num_canaries)} made-up identities scrubbed with the data, {leaked} leaked"),
        (
            "Canary recall",
            f"{measured(recall)} ({interval(recall.low, recall.high)}), the lower end from "
            f"{decimal(verification.min_canary_recall)} on",
        ),
        ("Values found open", f"{leaks} by readers that take no part in scrubbing"),
        ("Taken out by the second look", f"{count(caught)} rows that the detector left something in; no gate"),
        ("Scrubbing policy", short(evidence.examples.scrub.policy_sha256)),
    ]
    if evidence.examples.scrub.key_id:
        facts.append(("Key", evidence.examples.scrub.key_id))
    table = Table(("Values replaced", "Count"), rows or [(Cell("None found"), Cell("0"))])
    blocks: list[Block] = [Row([table, Facts(facts)])]
    by_type = [figure for figure in verification.measurements if figure.name.startswith(_CANARIES)]
    if by_type:
        lines = [(Cell(words(figure.name.removeprefix(_CANARIES))), _share(figure)) for figure in by_type]
        blocks.append(Details("Canary recall by type", [_in_two_columns(("Canaries", "Recall"), lines)]))
    return Section("privacy", "Personal data", blocks, short="Privacy")


def _in_two_columns(headers: Sequence[str], rows: Sequence[Sequence[Cell]]) -> Row:
    half = (len(rows) + 1) // 2
    return Row([Table(headers, rows[:half]), Table(headers, rows[half:])])


# ------------------------------------------------------------------------------------------------------- labels and bias


def labels_section(evidence: RunEvidence, gathered: Gathered) -> Section:
    """What the label audit found and did."""
    report = evidence.examples.labels
    blocks: list[Block] = [Text(f"Method: {report.method}.")]
    if gathered.issue_actions:
        actions = list(dict.fromkeys(action for counts in gathered.issue_actions.values() for action in counts))
        actions = sorted(actions, key=["drop", "fix", "review", "keep"].index)
        titles = {"drop": "Removed", "fix": "Corrected", "review": "For review", "keep": "Kept"}
        rows = [
            (Cell(words(kind)), *(Cell(count(counts.get(action, 0))) for action in actions))
            for kind, counts in gathered.issue_actions.items()
        ]
        blocks.append(Table(("Issue", *(titles[action] for action in actions)), rows))
    else:
        blocks.append(Text("No issue was found."))
    if report.measurements:
        figures = [
            (
                words(figure.name),
                measured(figure) + (f" (n\u202f=\u202f{count(figure.num_samples)})" if figure.num_samples else ""),
            )
            for figure in report.measurements
        ]
        blocks.append(Facts(figures))
    if report.notes:
        blocks.append(Bullets(report.notes))
    return Section("labels", "Labels and replies", blocks, short="Labels")


_BIAS = {
    "no_difference_found": "No difference beyond its allowance was found between the groups that could be compared.",
    "differences_found": "Outcomes differ between groups by more than allowed.",
    "not_assessable": "The groups are too small, or not declared: nothing could be assessed.",
}


def bias_section(evidence: RunEvidence, differences: Sequence[Mapping[str, Any]]) -> Section:
    """The verdict of the bias audit and the differences behind it."""
    report = evidence.examples.bias
    blocks: list[Block] = [Text(_BIAS[report.verdict])]
    if differences:
        rows = [
            (
                Cell(f"{found['dimension']}: {found['group']}", words(str(found["measure"]))),
                Cell(decimal(found["value"])),
                Cell(signed(found["difference"]), interval(found["difference_low"], found["difference_high"])),
                Cell(count(found["num_rows"])),
            )
            for found in differences[:10]
        ]
        blocks.append(Table(("Group", "Value", "To the rest", "Rows"), rows, stacks=True))
    if report.notes:
        blocks.append(Bullets(report.notes))
    return Section("bias", "Bias", blocks)


# ------------------------------------------------------------------------------------------------------------ compliance


def compliance_section(evidence: RunEvidence, gathered: Gathered) -> Section:
    """The checklist that an auditor asks for, each line with its evidence."""
    checks = [
        _personal_data_check(evidence),
        _confidential_check(evidence),
        _label_check(evidence, gathered),
        _bias_check(evidence),
        _format_check(evidence),
        _held_out_check(evidence, gathered),
        _lineage_check(evidence, gathered),
    ]
    return Section("compliance", "Compliance", [Checks(checks)])


def _personal_data_check(evidence: RunEvidence) -> Check:
    prepared = [source for _, source in _sources(evidence)]
    proven = all(one.verification.holds and one.verification.dataset == one.scrub.dataset for one in prepared)
    state: State = "pass" if proven else "fail"
    leaks = sum(one.verification.num_leaks for one in prepared)
    values = sum(sum(one.scrub.entities.values()) for one in prepared)
    recall = prepared[0].verification.canary_recall
    return Check(
        state,
        "Personal data removed",
        f"{count(values)} values replaced; {percent(recall.value or 0)} of {recall.num_samples or 0} canaries caught "
        f"(95\u202f% interval from {percent(recall.low or 0)}), {leaks} found open by independent readers; "
        f"findings {short(prepared[0].scrub.findings.sha256)}.",
    )


def _confidential_check(evidence: RunEvidence) -> Check:
    prepared = [source for _, source in _sources(evidence)]
    gated = all("confidential_filtered" in one.dataset.passed for one in prepared)
    removed = sum(one.confidential.num_quarantined + one.confidential.num_dropped for one in prepared)
    findings = short(prepared[0].confidential.findings.sha256)
    return Check(
        "pass" if gated else "fail",
        "Confidential content removed",
        f"{count(removed)} rows with secrets or deny-listed terms taken out; findings {findings}.",
    )


def _label_check(evidence: RunEvidence, gathered: Gathered) -> Check:
    report = evidence.examples.labels
    waiting = sum(counts.get("review", 0) for counts in gathered.issue_actions.values())
    issues = sum(report.num_issues.values())
    if not report.informative:
        return Check("open", "Labels reviewed", "The audit was not informative on this data; a person has to read a sample.")
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
    return Check(states[verdict], "Bias audited", _BIAS[verdict])


def _format_check(evidence: RunEvidence) -> Check:
    reports = [one.validation for _, one in _sources(evidence)]
    expectations = sum(report.num_expectations for report in reports)
    removed = sum(_num_removed(one.snapshot) + _num_removed(one.validation) for _, one in _sources(evidence))
    gated = all("validated" in report.dataset.passed for report in reports)
    text = f"{count(expectations)} expectations checked on every row; {count(removed)} unreadable or invalid rows taken out."
    return Check("pass" if gated else "fail", "Format validated", text)


def _held_out_check(evidence: RunEvidence, gathered: Gathered) -> Check:
    report = evidence.examples.decontamination
    fresh = evidence.examples.fresh
    newest = f" and {count(fresh.dataset.num_rows)} fresh ones" if fresh and fresh.dataset else ""
    text = (
        f"{count(evidence.examples.frozen.num_rows)} frozen examples{newest}; {count(_num_removed(report))} rows equal to, "
        f"or near, one of them kept out of training; {count(gathered.num_leaked_rows)} rows trained on say the "
        "same, counted anew."
    )
    apart = "decontaminated" in report.dataset.passed and not gathered.num_leaked_rows
    return Check("pass" if apart else "fail", "Test set held out", text)


def _lineage_check(evidence: RunEvidence, gathered: Gathered) -> Check:
    if gathered.lineage_fault:
        return Check("fail", "Lineage holds", gathered.lineage_fault)
    trained, snapshot = short(evidence.split.train.sha256), short(evidence.examples.snapshot.dataset.sha256)
    return Check("pass", "Lineage holds", f"Training rows {trained} descend from snapshot {snapshot} through every gate.")


def _num_removed(report: StageReport) -> int:
    return report.num_quarantined + report.num_dropped


def stage_times(evidence: RunEvidence) -> list[tuple[str, str]]:
    """How long each data stage took."""
    return [(name, duration(stage.seconds)) for name, stage in zip(STAGE_NAMES, evidence.examples.stages, strict=True)]
