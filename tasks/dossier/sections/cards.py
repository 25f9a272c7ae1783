"""Sections for the record: model card, data card, lineage, settings and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import yaml

from tasks.contracts.run import RunEvidence
from tasks.dossier.blocks import Bullets, Cell, Chain, Code, Details, Facts, Row, Section, Table
from tasks.dossier.config import DossierConfig
from tasks.dossier.formatting import (
    STAGE_NAMES,
    count,
    magnitude,
    measured,
    method_name,
    metric_name,
    metric_unit,
    percent,
    short,
    size,
    words,
)
from tasks.dossier.provenance import public_settings
from tasks.dossier.report_data import ReportData

_MAX_LABELS = 12


def model_card(evidence: RunEvidence, config: DossierConfig) -> Section:
    """The model, its intended use and its known limits."""
    base, candidate = evidence.sft.base, evidence.candidate
    steps = " and ".join(method_name(result) for result in evidence.steps)
    arm = evidence.benchmark.arm("candidate")
    metric = evidence.decision.primary_metric
    score = measured(arm.score(metric) if arm else None, metric_unit(metric))
    facts = [
        ("Model", f"{candidate.name}, version {candidate.version}"),
        ("Base model", f"{base.name} ({magnitude(base.num_parameters)} parameters, licence {base.license})"),
        ("Method", f"LoRA adapter by {steps}, {size(evidence.trained.adapter.size_bytes)}"),
        ("Trained on", f"{_trained_rows(evidence)} {short(evidence.sft.dataset.sha256)}"),
        ("Evaluation", f"{metric_name(metric)} {score} on {count(evidence.benchmark.dataset.num_rows)} held-out examples"),
        ("Intended use", config.intended_use or "not stated (set dossier.intended_use)"),
        ("Contact", config.contact or "not stated (set dossier.contact)"),
        ("MLflow run", candidate.run_id),
    ]
    limits = [*([base.note] if base.note else []), *config.limitations]
    limits.append("Automatic metrics compare wording with reference replies; they do not check facts.")
    return Section("model-card", "Model card", [Facts(facts), Bullets(limits, title="Limits")])


def _trained_rows(evidence: RunEvidence) -> str:
    """The rows that the ledger names, and of how many where the steps ended before all were drawn."""
    trained, available = evidence.sft.num_rows, evidence.split.train.num_rows
    return f"{count(trained)} rows" if trained == available else f"{count(trained)} of {count(available)} rows"


def data_card(evidence: RunEvidence, data: ReportData) -> Section:
    """The source of the rows, and their counts by label and group."""
    snapshot, facts = evidence.examples.snapshot, data.facts
    items = [
        ("Source", f"{snapshot.source_uri} ({snapshot.input_format})"),
        ("Source digest", short(snapshot.source_sha256)),
        ("Rows read", count(snapshot.num_rows_in)),
        ("Rows trained on", _trained_rows(evidence)),
        ("Gates passed", ", ".join(words(gate).lower() for gate in evidence.sft.dataset.passed)),
    ]
    if facts.first_day:
        items.append(("Rows dated", f"{facts.first_day} to {facts.last_day}"))
    if evidence.mixture and evidence.mixture.prepared:
        items += [
            (
                f"Mixed in, {part.name}" if number else "Mixed, examples",
                f"{count(part.num_rows)} rows ({percent(part.num_rows / evidence.mixture.dataset.num_rows)}) at weight "
                f"{part.weight:g}, {count(part.num_duplicates)} duplicates left out; snapshot {short(part.snapshot_sha256)}",
            )
            for number, part in enumerate(evidence.mixture.parts)
        ]
    if evidence.preferences:
        pairs = evidence.preferences
        items.append(("Preference pairs", f"{count(pairs.dataset.num_rows)} of {count(pairs.snapshot.num_rows_in)}"))
    tables = []
    for title, counts in (("Label", facts.labels), *((words(name), counts) for name, counts in facts.groups.items())):
        if counts:
            tables.append(_distribution(title, counts))
    return Section("data-card", "Data card", [Facts(items), *([Row(tables)] if tables else [])])


def _distribution(title: str, counts: Mapping[str, int]) -> Table:
    total = sum(counts.values())
    shown = list(counts.items())[:_MAX_LABELS]
    top = max(counts.values())
    rows = [(Cell(name, bar=number / top), Cell(count(number)), Cell(percent(number / total))) for name, number in shown]
    if len(counts) > len(shown):
        rest = total - sum(number for _, number in shown)
        rows.append((Cell(f"{len(counts) - len(shown)} more"), Cell(count(rest)), Cell(percent(rest / total))))
    return Table((title, "Rows", "Share"), rows)


def lineage_section(evidence: RunEvidence, data: ReportData) -> Section:
    """The hash chain from the raw file to the model version."""
    mixed = ("Mix",) if evidence.mixture and evidence.mixture.prepared else ()
    names = (*STAGE_NAMES, *mixed, "Training rows")
    links = [
        ("Raw file", evidence.examples.snapshot.source_sha256, evidence.examples.snapshot.source_uri.rsplit("/", 1)[-1])
    ]
    links += [(name, ref.sha256, f"{count(ref.num_rows)} rows") for name, ref in zip(names, data.chain, strict=False)]
    for result in evidence.steps:
        links.append((f"{method_name(result)} adapter", result.adapter.sha256, size(result.adapter.size_bytes)))
    if evidence.merged:
        links.append(("Merged model", evidence.merged.folder.sha256, size(evidence.merged.folder.size_bytes)))
    beside = [
        ("Base model", f"{short(evidence.sft.base.folder.sha256)}, {evidence.sft.base.name}"),
        (
            "Frozen test set",
            f"{short(evidence.benchmark.dataset.sha256)}, {count(evidence.benchmark.dataset.num_rows)} rows",
        ),
    ]
    fault = data.lineage_fault
    return Section("lineage", "Lineage", [*([Bullets([fault])] if fault else []), Chain(links), Facts(beside)])


def settings_section(evidence: RunEvidence, versions: Mapping[str, str], times: Sequence[tuple[str, str]]) -> Section:
    """The settings and versions that repeat the run."""
    settings = yaml.safe_dump(public_settings(evidence.settings), sort_keys=False, allow_unicode=True)
    return Section(
        "record",
        "For the record",
        [
            Details("Versions", [Facts(list(versions.items()))]),
            Details("Time per data stage", [Facts(times)]),
            Details("Settings", [Code(settings)]),
        ],
        short="Record",
    )
