"""The page out of the evidence: verdict, a few figures, and the sections in the order in which a reader asks."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.contracts.run import RunEvidence
from tasks.core.addresses import without_secrets
from tasks.dossier.blocks import Page, Section, Tile
from tasks.dossier.business import business_section
from tasks.dossier.cards import data_card, lineage_section, model_card, settings_section
from tasks.dossier.config import DossierConfig
from tasks.dossier.fit import fit_section
from tasks.dossier.gathering import Gathered
from tasks.dossier.judgement import answers_section, decision_section, fresh_section, scores_section
from tasks.dossier.notation import count, duration, measured, metric_name, metric_unit
from tasks.dossier.preparation import (
    bias_section,
    compliance_section,
    funnel_section,
    labels_section,
    personal_data_section,
    stage_times,
    truth_section,
)
from tasks.dossier.redteam import red_team_section
from tasks.dossier.slices import slices_section
from tasks.dossier.training import training_section
from tasks.dossier.verdict import verdict_of


def compose_page(
    evidence: RunEvidence, gathered: Gathered, config: DossierConfig, versions: Mapping[str, str], written: str
) -> Page:
    """Everything that the template shows.

    Args:
        evidence: The run.
        gathered: What was read from the store for it.
        config: Settings of the dossier.
        versions: Installed versions by package.
        written: When, in words.
    """
    sections: list[Section | None] = [
        decision_section(evidence),
        scores_section(evidence),
        fresh_section(evidence),
        business_section(evidence),
        answers_section(gathered.answers, evidence.decision.primary_metric),
        slices_section(gathered.slices, evidence.decision.primary_metric),
        red_team_section(evidence),
        fit_section(evidence),
        compliance_section(evidence, gathered),
        funnel_section(evidence),
        truth_section(evidence),
        personal_data_section(evidence),
        labels_section(evidence, gathered),
        bias_section(evidence, gathered.differences),
        training_section(evidence, gathered),
        model_card(evidence, config),
        data_card(evidence, gathered),
        lineage_section(evidence, gathered),
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
    num_read = sum(one.snapshot.num_rows_in for one in (evidence.examples, *further))
    replaced = sum(sum(one.scrub.entities.values()) for one in prepared)
    seconds = sum(result.seconds for result in evidence.steps)
    trained = evidence.split.train.num_rows
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
