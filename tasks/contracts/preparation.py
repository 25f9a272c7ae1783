"""Reports of the data stages, from the snapshot to the split."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FileRef


class StageReport(Contract):
    """The report of one data stage. Every row is accounted for: in = out + quarantined + dropped.

    ``quarantined`` and ``dropped`` count rows by reason code. ``quarantine`` holds quarantined rows with their content, so
    that nothing is lost, and dropped rows (duplicates, rows that a policy excludes) by id and reason.
    """

    stage: str
    dataset: DatasetRef
    num_rows_in: int = Field(ge=0)
    quarantine: DatasetRef | None = None
    quarantined: Mapping[str, int] = {}
    dropped: Mapping[str, int] = {}
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def num_quarantined(self) -> int:
        """Number of quarantined rows."""
        return sum(self.quarantined.values())

    @property
    def num_dropped(self) -> int:
        """Number of dropped rows."""
        return sum(self.dropped.values())

    @model_validator(mode="after")
    def _every_row_is_accounted_for(self) -> Self:
        found = self.dataset.num_rows + self.num_quarantined + self.num_dropped
        if found != self.num_rows_in:
            raise ValueError(
                f"{self.stage}: {self.num_rows_in} rows came in, but {self.dataset.num_rows} went out, "
                f"{self.num_quarantined} were quarantined and {self.num_dropped} dropped ({found} in all)"
            )
        return self


class Snapshot(StageReport):
    """Raw input, read once and frozen: canonical rows, and a quarantine of lines that cannot be parsed."""

    source_uri: str
    source_sha256: str
    input_format: str


class SnapshotHistory(Contract):
    """The newest snapshot of a source that passed validation, its valid rows, and those of its predecessor."""

    snapshot_sha256: str
    passed: DatasetRef
    before: DatasetRef | None = None


class ValidationReport(StageReport):
    """The outcome of the expectation suite; ``results`` is its JSON, without raw values."""

    num_expectations: int
    num_failed_expectations: int
    results: FileRef


class DeduplicationReport(StageReport):
    """Exact and near duplicates; the kept rows have their cluster in ``split_group``."""

    num_exact: int
    num_near: int
    num_clusters: int


class ConfidentialReport(StageReport):
    """Secrets and deny-listed terms; ``findings`` holds offsets and pattern names, never values."""

    findings: DatasetRef
    hits: Mapping[str, int] = {}


class ScrubShards(Contract):
    """The shards of a data set, and what its rows share: product names and the names of classes."""

    shards: tuple[DatasetRef, ...]
    common: FileRef


class ScrubbedShard(Contract):
    """One scrubbed shard; its rows count as scrubbed only after the check across all shards."""

    kept: DatasetRef
    refused: DatasetRef | None = None
    findings: DatasetRef
    num_characters: int
    num_masked_characters: int
    policy_sha256: str


class MaskedTerm(Contract):
    """A word that was masked in many rows, and so rather names a thing than a person."""

    term: str
    entity: str
    num_rows: int


class ScrubReport(StageReport):
    """Personal data removed; ``findings`` holds offsets, entity, score, detector, operator and a keyed fingerprint.

    ``frequent_terms`` are candidates for ``pii.allowed_terms``.
    """

    findings: DatasetRef
    entities: Mapping[str, int] = {}
    frequent_terms: tuple[MaskedTerm, ...] = ()
    policy_sha256: str
    key_id: str | None = None


class ScrubVerification(Contract):
    """Evidence that scrubbing worked, by independent means.

    Two figures are gates, each with its limit: the lower bound of ``canary_recall``, and ``num_leaks``, the findings of
    independent detectors in the rows. ``num_rows_caught`` is no gate: it counts the rows that the scrubber's second pass
    removed, which measures what the first pass missed and says nothing about the remaining rows.
    """

    dataset: DatasetRef
    num_canaries: int
    num_canaries_leaked: int
    canary_recall: Measurement
    min_canary_recall: float
    num_leaks: int
    max_leaks: int
    num_rows_caught: int
    sample: FileRef | None = None
    measurements: tuple[Measurement, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether both gates hold."""
        return (self.canary_recall.low or 0.0) >= self.min_canary_recall and self.num_leaks <= self.max_leaks


class LabelAuditReport(StageReport):
    """Label noise and mismatched replies; ``issues`` is a table (id, kind, score, given, suggested, action)."""

    method: str
    informative: bool
    issues: DatasetRef
    num_issues: Mapping[str, int] = {}
    review_queue: FileRef | None = None


class ReviewQueue(Contract):
    """The rows of one data set that await a person's decision, and since when."""

    queue: FileRef
    num_rows: int
    requested_at: datetime


class BiasReport(Contract):
    """Representation and outcome differences across groups; ``table`` holds one row per group and measure.

    ``weights`` holds one weight per row id if ``bias.reweight_by`` is set; training does not read it.
    """

    dataset: DatasetRef
    table: DatasetRef
    weights: DatasetRef | None = None
    verdict: Literal["no_difference_found", "differences_found", "not_assessable"]
    notes: tuple[str, ...] = ()


class RecentHoldout(Contract):
    """The newest rows, on which no compared model was trained; they change from run to run.

    All are newer than ``since``, which is not before the newest frozen example; ``reason`` explains an absent data set.
    """

    dataset: DatasetRef | None = None
    since: AwareDatetime | None = None
    reason: str = ""


class PreparedDataset(Contract):
    """The reports of all stages of ``prepare_dataset`` for one source.

    ``frozen`` is the frozen evaluation set of the task, chosen once from the first snapshot; ``fresh`` is the fresh one of
    this run. ``decontamination`` removes training rows that equal, or nearly equal, a row of either.
    """

    snapshot: Snapshot
    validation: ValidationReport
    deduplication: DeduplicationReport
    confidential: ConfidentialReport
    scrub: ScrubReport
    verification: ScrubVerification
    labels: LabelAuditReport
    bias: BiasReport
    frozen: DatasetRef
    decontamination: StageReport
    fresh: RecentHoldout | None = None

    @property
    def dataset(self) -> DatasetRef:
        """The training rows."""
        return self.decontamination.dataset

    @property
    def stages(self) -> tuple[StageReport, ...]:
        """The row-removing stages in order; the output of each is the input of the next."""
        return (
            self.snapshot,
            self.validation,
            self.deduplication,
            self.confidential,
            self.scrub,
            self.labels,
            self.decontamination,
        )


class MixturePart(Contract):
    """One source of a mixture: the weight of its rows, and the resulting number of rows.

    ``num_duplicates`` counts its rows that an earlier source contains too; they are counted for that source.
    """

    name: str
    dataset: DatasetRef
    snapshot_sha256: str
    weight: float = 1.0
    num_rows: int = 0
    num_duplicates: int = 0


class Mixture(Contract):
    """The rows to split and train on: the examples alone, or several sources in one data set whose lineage is a tree.

    ``prepared`` has the preparation of every source but the first, in the order of ``parts``.
    """

    dataset: DatasetRef
    parts: tuple[MixturePart, ...]
    prepared: tuple[PreparedDataset, ...] = ()

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that its rows descend from."""
        return tuple(part.snapshot_sha256 for part in self.parts)

    @model_validator(mode="after")
    def _every_row_has_a_source(self) -> Self:
        found = sum(part.num_rows for part in self.parts)
        if found != self.dataset.num_rows:
            raise ValueError(f"a mixture of {self.dataset.num_rows} rows, of which {found} have a source")
        return self


class Split(Contract):
    """Train and validation rows of a decontaminated data set; no ``split_group`` is in both."""

    train: DatasetRef
    validation: DatasetRef
    num_groups: int
