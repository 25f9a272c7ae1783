"""The dossier's page from the evidence: verdict, key figures, and the sections, most important first."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.contracts.run import RunEvidence
from tasks.core.addresses import without_secrets
from tasks.dossier.blocks import Page, Section, Tile
from tasks.dossier.config import DossierConfig
from tasks.dossier.formatting import count, duration, measured, metric_name, metric_unit
from tasks.dossier.report_data import ReportData
from tasks.dossier.sections.business import business_section
from tasks.dossier.sections.cards import data_card, lineage_section, model_card, settings_section
from tasks.dossier.sections.compliance import compliance_section
from tasks.dossier.sections.decision import decision_section
from tasks.dossier.sections.preparation import (
    bias_section,
    funnel_section,
    ground_truth_section,
    labels_section,
    personal_data_section,
    stage_times,
)
from tasks.dossier.sections.prompting import prompting_section
from tasks.dossier.sections.redteam import red_team_section
from tasks.dossier.sections.scores import answers_section, fresh_section, scores_section
from tasks.dossier.sections.slices import slices_section
from tasks.dossier.sections.training import training_section
from tasks.dossier.verdict import verdict_of


def compose_page(
    evidence: RunEvidence, data: ReportData, config: DossierConfig, versions: Mapping[str, str], written: str
) -> Page:
    """Everything that the template shows.

    Args:
        evidence: The run.
        data: Data from the store, beyond the evidence.
        config: Settings of the dossier.
        versions: Installed versions by package.
        written: The time of writing, as text.
    """
    sections: list[Section | None] = [
        decision_section(evidence),
        scores_section(evidence),
        fresh_section(evidence),
        business_section(evidence),
        answers_section(data.answers, evidence.decision.primary_metric),
        slices_section(data.slices, evidence.decision.primary_metric),
        red_team_section(evidence),
        prompting_section(evidence),
        compliance_section(evidence, data),
        funnel_section(evidence),
        ground_truth_section(evidence),
        personal_data_section(evidence),
        labels_section(evidence, data),
        bias_section(evidence, data.differences),
        training_section(evidence, data),
        model_card(evidence, config),
        data_card(evidence, data),
        lineage_section(evidence, data),
        settings_section(evidence, versions, stage_times(evidence)),
    ]
    return Page(
        model=evidence.model_name,
        run=evidence.run_name,
        written=written,
        verdict=verdict_of(evidence),
        tiles=_tiles(evidence),
        sections=[section for section in sections if section is not None],
        links=[("Run in Prefect", without_secrets(evidence.flow_run_url))] if evidence.flow_run_url else [],
    )


def _tiles(evidence: RunEvidence) -> list[Tile]:
    metric = evidence.decision.primary_metric
    unit = metric_unit(metric)
    scores = {arm.arm: measured(arm.score(metric), unit) for arm in evidence.benchmark.arms}
    further = evidence.mixture.prepared if evidence.mixture else ()
    prepared = [evidence.examples, *further, *([evidence.preferences] if evidence.preferences else [])]
    num_read = sum(source.snapshot.num_rows_in for source in (evidence.examples, *further))
    replaced = sum(sum(source.scrub.entities.values()) for source in prepared)
    seconds = sum(result.seconds for result in evidence.steps)
    trained = evidence.sft.num_rows
    against = [f"base {scores['base']}"] if "base" in scores else []
    against += [f"champion {scores['champion']}"] if "champion" in scores else []
    return [
        Tile(metric_name(metric), scores.get("candidate", "\u2013"), ", ".join(against)),
        Tile(
            "Rows trained on",
            count(trained),
            f"of {count(num_read)} read",
        ),
        Tile("Personal values replaced", count(replaced)),
        Tile("Training time", duration(seconds), f"on {evidence.trained.plan.device}"),
    ]
