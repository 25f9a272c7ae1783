"""The results of one retrain, and its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from tasks.contracts.base import Contract
from tasks.contracts.evaluation import BenchmarkReport, GroundTruthReport, PromotionDecision, PromptingVerdict
from tasks.contracts.preparation import Mixture, PreparedDataset, Split
from tasks.contracts.references import FileRef
from tasks.contracts.registry import PromotionRecord, RegisteredVersion
from tasks.contracts.training import MergedModel, TrainingSteps


class RunFindings(TrainingSteps):
    """All results of a run before registration; the input of promotion and dossier.

    ``flow_run_id`` is Prefect's id of the retrain, whichever run writes the dossier. ``start`` says where the training
    started. ``started_by`` is the person who started it, by their own statement; None for a schedule or an alert.
    """

    run_name: str
    model_name: str
    settings: Mapping[str, Any]
    examples: PreparedDataset
    preferences: PreparedDataset | None
    split: Split
    benchmark: BenchmarkReport
    decision: PromotionDecision
    truth: GroundTruthReport
    flow_run_id: str | None = None
    flow_run_url: str | None = None
    merged: MergedModel | None = None
    fit: PromptingVerdict | None = None
    mixture: Mixture | None = None
    reason: str | None = None
    start: str = "the base model"
    started_by: str | None = None

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that the training rows descend from."""
        return self.mixture.snapshots if self.mixture else (self.examples.snapshot.dataset.sha256,)


class BusinessPeriod(Contract):
    """Business figures of a period, such as satisfaction; an absent figure was not measured."""

    period: str
    model_version: str | None = None
    figures: Mapping[str, float]


class RunEvidence(RunFindings):
    """The results of a run, with registration and promotion; the dossier is its rendering."""

    candidate: RegisteredVersion
    promotion: PromotionRecord
    business: tuple[BusinessPeriod, ...] = ()

    @classmethod
    def of(cls, findings: RunFindings, candidate: RegisteredVersion, promotion: PromotionRecord) -> Self:
        """The evidence of a run whose candidate has been registered."""
        fields = {name: getattr(findings, name) for name in RunFindings.model_fields}
        return cls(**fields, candidate=candidate, promotion=promotion)


class Dossier(Contract):
    """The evidence of one run: a self-contained HTML page and its JSON."""

    html: FileRef
    record: FileRef
    run_name: str
    mlflow_run_id: str | None = None


class RetrainOutcome(Contract):
    """The outcome of a retrain; promotion and dossier are None if the flow run ``promoted_by`` makes them."""

    run_name: str
    decision: PromotionDecision
    promotion: PromotionRecord | None
    dossier: Dossier | None
    promoted_by: str | None = None
