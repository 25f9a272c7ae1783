"""Sections on the data: rows in and out of every stage, measured quality, personal data, labels and bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.contracts.measurement import Measurement
from tasks.contracts.preparation import PreparedDataset
from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Block, Bullets, Cell, Details, Facts, Plot, Row, Section, Table, Text
from tasks.dossier.formatting import (
    BIAS_VERDICTS,
    STAGE_NAMES,
    count,
    decimal,
    duration,
    interval,
    measured,
    short,
    signed,
    words,
)
from tasks.dossier.plots import Step, plot_funnel
from tasks.dossier.report_data import ReportData, sources_of

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
    "pii.refused_rows": "Rows that scrubbing quarantined",
    "labels.wrong_label": "Wrong labels, flagged",
    "labels.wrong_label.automatic": "Wrong labels, acted on",
    "responses": "Bad replies, flagged",
    "responses.swapped": "Swapped replies",
    "responses.truncated": "Truncated replies",
    "responses.garbled": "Garbled replies",
}


def funnel_section(evidence: RunEvidence) -> Section:
    """Rows in and out of every stage, with the reasons for those that left."""
    blocks: list[Block] = []
    for title, prepared in sources_of(evidence):
        steps = _steps(prepared)
        name = prepared.snapshot.source_uri.rsplit("/", 1)[-1]
        label = f"{title}: rows left after each stage"
        caption = f"{title}, from {name}: rows left after each stage, and rows taken away."
        blocks.append(Row([Plot(plot_funnel(steps, label), caption), _reasons(prepared)]))
    blocks.append(
        Text(
            "Nothing is lost: rows in equal rows out plus these. Quarantined rows are in the store with their "
            "content and reason, duplicates and held-out rows by their ids."
        )
    )
    return Section("data", "What happened to the rows", blocks, short="Data")


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


def ground_truth_section(evidence: RunEvidence) -> Section | None:
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
        "This data comes with a list of every planted fault, which no stage reads. Recall is the share of "
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


def personal_data_section(evidence: RunEvidence) -> Section:
    """Replaced values by entity type, and the recall of the canaries."""
    sources = sources_of(evidence)
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
        ("Values found open", f"{leaks} by detectors that are independent of scrubbing"),
        ("Removed by the second scan", f"{count(caught)} rows in which the detector missed a value; not a gate"),
        ("Scrubbing policy", short(evidence.examples.scrub.policy_sha256)),
    ]
    figures = {one.name: one for one in evidence.examples.scrub.measurements}
    if "masked_row_share" in figures:
        facts.append(
            (
                "Masked",
                f"{measured(figures['masked_row_share'])} of the rows, "
                f"{measured(figures['masked_character_share'])} of the characters",
            )
        )
        before, after = (count(int(figures[f"distinct_rows_{when}"].value or 0)) for when in ("before", "after"))
        facts.append(("Distinct rows", f"{before} before scrubbing, {after} afterwards"))
    if terms := evidence.examples.scrub.frequent_terms:
        shown = ", ".join(f"{one.term} ({count(one.num_rows)})" for one in terms[:10])
        facts.append(("Masked in many rows", f"{shown}; what names no person may go into pii.allowed_terms"))
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


def labels_section(evidence: RunEvidence, data: ReportData) -> Section:
    """The findings of the label audit and its actions."""
    report = evidence.examples.labels
    blocks: list[Block] = [Text(f"Method: {report.method}.")]
    if data.issue_actions:
        actions = list(dict.fromkeys(action for counts in data.issue_actions.values() for action in counts))
        actions = sorted(actions, key=["drop", "fix", "review", "keep"].index)
        titles = {"drop": "Removed", "fix": "Corrected", "review": "For review", "keep": "Kept"}
        rows = [
            (Cell(words(kind)), *(Cell(count(counts.get(action, 0))) for action in actions))
            for kind, counts in data.issue_actions.items()
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


def bias_section(evidence: RunEvidence, differences: Sequence[Mapping[str, Any]]) -> Section:
    """The verdict of the bias audit and the differences behind it."""
    report = evidence.examples.bias
    blocks: list[Block] = [Text(BIAS_VERDICTS[report.verdict])]
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


def stage_times(evidence: RunEvidence) -> list[tuple[str, str]]:
    """The duration of each data stage."""
    return [(name, duration(stage.seconds)) for name, stage in zip(STAGE_NAMES, evidence.examples.stages, strict=True)]
