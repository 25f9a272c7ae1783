"""The data dictionary: every record that crosses a task boundary, in pipeline order.

All are frozen Pydantic models with ``extra="forbid"``, stored as JSON and about a kilobyte in size: data travels by
reference, never by value. A stage's report carries the data set it produced, so that the next call reads
``scrub.dataset`` and Prefect records the edge. This module's path is an address: stored results name it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

DatasetKind = Literal["messages", "preferences", "quarantine", "table"]
"""``messages`` and ``preferences`` are training rows (see :mod:`tasks.rows`); ``quarantine`` holds refused rows with
their reason; ``table`` is any other tabular record (findings, issues, scores)."""


SHA256 = r"^[0-9a-f]{64}$"
"""A hexadecimal SHA-256. It becomes part of a path, so nothing else may stand in its place."""


class Contract(BaseModel):
    """Base of every record that crosses a task boundary."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


# ----------------------------------------------------------------------------------------------------------- references


class Reference(Contract):
    """What names a thing by kind and hash; the run's own store knows where it lies (:func:`tasks.storage.run_store`).

    Nothing that lasts holds a place: a store that was copied elsewhere serves every record that was written before.
    """

    @model_validator(mode="before")
    @classmethod
    def _forget_the_place(cls, fields: Any) -> Any:
        """Records of earlier releases hold a URI, which may lead to where the store no longer is."""
        if isinstance(fields, Mapping) and "uri" in fields:
            return {name: value for name, value in fields.items() if name != "uri"}
        return fields


class DatasetRef(Reference):
    """A Parquet data set in the store; the heart of lineage.

    ``sha256`` covers the rows *and* ``kind``, ``parents`` and ``passed``, which are written into the file's own schema
    metadata. The chain of parents is therefore tamper-evident, and two equal tables with different histories differ.
    """

    sha256: str = Field(pattern=SHA256)
    num_rows: int = Field(ge=0)
    kind: DatasetKind
    parents: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()


class FileRef(Reference):
    """One file in the store; ``suffix`` is the end of its name there, such as ``.html``."""

    sha256: str = Field(pattern=SHA256)
    size_bytes: int = Field(ge=0)
    suffix: str = Field("", pattern=r"^(\.[a-z0-9]+)*$")


class FolderRef(Reference):
    """A folder in the store (a model, an adapter); ``sha256`` is that of its sorted list of file digests."""

    sha256: str = Field(pattern=SHA256)
    num_files: int = Field(ge=0)
    size_bytes: int = Field(ge=0)


class Measurement(Contract):
    """A measured figure, with its interval where one is known. ``value`` is None when it was not measured (never 0)."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    num_samples: int | None = None
    note: str = ""


# -------------------------------------------------------------------------------------------------------------- prepare


class StageReport(Contract):
    """What one data stage did. Every row is accounted for: in = out + quarantined + dropped.

    ``quarantined`` and ``dropped`` count rows by reason code. Quarantined rows lie in ``quarantine`` with their content,
    so that nothing is lost; dropped rows (duplicates, rows that a policy excludes) are listed there too, by id and reason.
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
        """Rows quarantined, over all reasons."""
        return sum(self.quarantined.values())

    @property
    def num_dropped(self) -> int:
        """Rows dropped, over all reasons."""
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
    """Raw input, read once and frozen: canonical rows, plus what could not be parsed."""

    source_uri: str
    source_sha256: str
    input_format: str


class SnapshotHistory(Contract):
    """The newest snapshot of a source that passed validation, and what passed of the one before it."""

    snapshot_sha256: str
    passed: DatasetRef
    before: DatasetRef | None = None


class ValidationReport(StageReport):
    """Outcome of the expectation suite; ``results`` is its JSON, without raw values."""

    num_expectations: int
    num_failed_expectations: int
    results: FileRef


class DeduplicationReport(StageReport):
    """Exact and near duplicates; the surviving rows carry their cluster in ``split_group``."""

    num_exact: int
    num_near: int
    num_clusters: int


class ConfidentialReport(StageReport):
    """Secrets and deny-listed terms; ``findings`` holds offsets and pattern names, never values."""

    findings: DatasetRef
    hits: Mapping[str, int] = {}


class ScrubShards(Contract):
    """A data set cut into parts for several machines, and what the whole of it says of its product names."""

    shards: tuple[DatasetRef, ...]
    common_terms: FileRef


class ScrubbedShard(Contract):
    """What became of one shard; its rows do not count as scrubbed before they were checked against all others."""

    kept: DatasetRef
    refused: DatasetRef | None = None
    findings: DatasetRef
    num_characters: int
    num_masked_characters: int
    policy_sha256: str


class ScrubReport(StageReport):
    """Personal data removed; ``findings`` holds offsets, entity, score, detector, operator and a keyed fingerprint."""

    findings: DatasetRef
    entities: Mapping[str, int] = {}
    policy_sha256: str
    key_id: str | None = None


class ScrubVerification(Contract):
    """Evidence that scrubbing worked, by means that take no part in it.

    Two figures are gates, each with its limit: the lower bound of ``canary_recall``, and ``num_leaks``, what independent
    readers found in the rows. ``num_rows_caught`` is none: it counts the rows that the scrubber's second look took out,
    which tells how much the detector left and nothing about the rows that stayed.
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
    """Label noise and responses that do not fit; ``issues`` is a table (id, kind, score, given, suggested, action)."""

    method: str
    informative: bool
    issues: DatasetRef
    num_issues: Mapping[str, int] = {}
    review_queue: FileRef | None = None


class ReviewQueue(Contract):
    """What a person was asked about one data set, and since when."""

    queue: FileRef
    num_rows: int
    asked_at: datetime


class BiasReport(Contract):
    """Representation and outcome differences across groups; ``table`` holds one row per group and measure.

    ``weights`` holds one weight per row id, where ``bias.reweight_by`` asks for them; training does not read it.
    """

    dataset: DatasetRef
    table: DatasetRef
    weights: DatasetRef | None = None
    verdict: Literal["no_difference_found", "differences_found", "not_assessable"]
    notes: tuple[str, ...] = ()


class FreshSet(Contract):
    """The newest rows, which no model that is compared was trained on; they change from run to run.

    All are newer than ``since``, which is not before the newest frozen example; ``reason`` says why there is no data set.
    """

    dataset: DatasetRef | None = None
    since: AwareDatetime | None = None
    reason: str = ""


class PreparedDataset(Contract):
    """Everything that ``prepare_dataset`` did to one source, stage by stage.

    ``frozen`` is the frozen evaluation set of the task: chosen once from the first snapshot, the same ever after; ``fresh``
    is that of this run. ``decontamination`` takes out of the training rows what equals, or nearly equals, a row of either.
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
    fresh: FreshSet | None = None

    @property
    def dataset(self) -> DatasetRef:
        """The rows that may be trained on."""
        return self.decontamination.dataset

    @property
    def stages(self) -> tuple[StageReport, ...]:
        """The row-removing stages in order; each one's rows in are the previous one's rows out."""
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
    """One source of a mixture: how often each of its rows is taken, and how many that made.

    ``num_duplicates`` counts its rows that an earlier source had too; they are taken from that one.
    """

    name: str
    dataset: DatasetRef
    snapshot_sha256: str
    weight: float = 1.0
    num_rows: int = 0
    num_duplicates: int = 0


class Mixture(Contract):
    """What is split and trained on: the examples alone, or several sources in one data set whose lineage is a tree.

    ``prepared`` accounts for the rows of every source but the first, in the order of ``parts``.
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
    """Train and validation rows of a decontaminated data set; no ``split_group`` stands in both."""

    train: DatasetRef
    validation: DatasetRef
    num_groups: int


class TruthReport(Contract):
    """Measured precision and recall of the stages against planted ground truth (None where no truth is configured)."""

    measurements: tuple[Measurement, ...] = ()


# ------------------------------------------------------------------------------------------------------------- training


class BaseLanguageModel(Contract):
    """The base model, resolved to a folder in the store that transformers reads."""

    name: str
    folder: FolderRef
    license: str
    num_parameters: int
    note: str = ""


class TrainingPlan(Contract):
    """What training will do, computed before it spends anything."""

    method: str
    num_rows: int
    num_tokens: int
    num_steps: int
    micro_batch_size: int
    accumulation_steps: int
    max_length_tokens: int
    num_truncated_rows: int
    precision: str
    device: str
    num_parameters: int
    num_trainable_parameters: int
    memory_bytes: Mapping[str, int]
    estimated_seconds: float
    notes: tuple[str, ...] = ()
    num_trained_tokens: int = 0
    num_processes: int = 1
    eval_steps: int = 1
    gradient_checkpointing: bool = False
    packing: bool = False
    num_sequences: int = 0
    quantization: str = "none"
    sharding: str = "none"
    attn_implementation: str = "sdpa"
    liger_kernel: bool = False
    device_name: str = ""
    price_per_device_hour: float | None = None
    currency: str = ""

    @property
    def num_devices(self) -> int:
        """What is paid for: every GPU, or the one machine whose CPU is used."""
        return self.num_processes if self.device == "cuda" else 1

    @property
    def num_epochs(self) -> float:
        """Passes over the rows that the planned steps make; packed rows are counted in sequences."""
        num_sequences = self.num_sequences or self.num_rows
        per_step = self.micro_batch_size * self.accumulation_steps * self.num_processes
        return self.num_steps / max(1, math.ceil(num_sequences / per_step))  # the last step of an epoch may be smaller

    @property
    def device_hours(self) -> float:
        """Planned hours, over all devices."""
        return self.device_hours_of(self.estimated_seconds)

    @property
    def cost(self) -> float | None:
        """Planned price in ``currency``; None where the configuration names none for this device."""
        return self.cost_of(self.estimated_seconds)

    def device_hours_of(self, seconds: float) -> float:
        """Hours that ``seconds`` of this training take, over all devices."""
        return seconds * self.num_devices / 3600

    def cost_of(self, seconds: float) -> float | None:
        """The price of ``seconds`` of this training, in ``currency``."""
        return None if self.price_per_device_hour is None else self.device_hours_of(seconds) * self.price_per_device_hour


class TrainingResult(Contract):
    """A trained adapter (safetensors) with its manifest, curves and history of attempts."""

    method: str
    base: BaseLanguageModel
    adapter: FolderRef
    dataset: DatasetRef
    plan: TrainingPlan
    num_steps: int
    num_tokens: int
    seconds: float
    curves: DatasetRef
    measurements: tuple[Measurement, ...] = ()
    num_attempts: int = 1
    events: tuple[str, ...] = ()
    mlflow_run_id: str | None = None
    peak_memory_bytes: int = 0

    @property
    def device_hours(self) -> float:
        """Hours taken, over all devices; the planned ones are in ``plan``."""
        return self.plan.device_hours_of(self.seconds)

    @property
    def cost(self) -> float | None:
        """What that cost in the plan's currency, at the price of the day; None where no price was configured."""
        return self.plan.cost_of(self.seconds)


class BudgetRequest(Contract):
    """A training above its ceiling that waits for a person's word, and that word; times are ISO 8601 in UTC."""

    training: str
    device: str
    device_hours: float
    cost: float | None
    currency: str
    question: str
    asked_at: str
    verdict: Literal["allow", "refuse"] | None = None
    by: str | None = None
    reason: str | None = None
    answered_at: str | None = None


class SearchTrial(Contract):
    """One trial of a search: its settings (None: not searched) and its validation loss (None unless it is complete)."""

    outcome: Literal["complete", "pruned", "failed"]
    learning_rate: float
    num_train_epochs: float | None = None
    r: int | None = None
    eval_loss: float | None = None
    device_hours: float = 0.0


class SearchReport(Contract):
    """Every trial of a study in order; ``best`` is the index of the one with the lowest validation loss."""

    study: str
    trials: tuple[SearchTrial, ...]
    best: int
    notes: tuple[str, ...] = ()

    @property
    def winner(self) -> SearchTrial:
        """The best trial."""
        return self.trials[self.best]


class MergedModel(Contract):
    """The base model with the adapter merged in: a whole model in float32 safetensors, with tokenizer and manifest.

    ``num_compared_tokens`` were generated greedily before merging, after it and after reading back, and were the same.
    """

    folder: FolderRef
    base_sha256: str
    adapter_sha256: str
    num_compared_tokens: int = Field(gt=0)


class TrainingSteps(Contract):
    """SFT and, where there were preference pairs, DPO or KTO on top of it; GRPO at last, where rewards were asked for."""

    sft: TrainingResult
    dpo: TrainingResult | None = None
    kto: TrainingResult | None = None
    grpo: TrainingResult | None = None

    @property
    def steps(self) -> tuple[TrainingResult, ...]:
        """What was trained, in order."""
        return tuple(step for step in (self.sft, self.dpo, self.kto, self.grpo) if step is not None)

    @property
    def trained(self) -> TrainingResult:
        """The last training step: its adapter is the candidate."""
        return self.steps[-1]


class TrainedModel(TrainingSteps):
    """The training steps; merged where that was asked for."""

    merged: MergedModel | None = None

    @property
    def adapter(self) -> FolderRef:
        """The adapter of the last training step."""
        return self.trained.adapter


# ------------------------------------------------------------------------------------------------------------ judgement


class ArmScores(Contract):
    """One model's aggregate scores on the benchmark; ``examples`` is a table with one row per example and metric column.

    ``general`` is the like for general questions, which show what fine-tuning made the model forget; ``slices`` holds the
    means by label, group, length and script, with intervals where there are enough examples.
    """

    arm: str
    model_sha256: str
    examples: DatasetRef
    scores: tuple[Measurement, ...]
    general: DatasetRef | None = None
    slices: DatasetRef | None = None

    def score(self, name: str) -> Measurement | None:
        """The named aggregate, or None when it was not measured."""
        return next((score for score in self.scores if score.name == name), None)


class RedTeamArm(Contract):
    """One model's rates under attack (:data:`tasks.safety.RATES`); ``probes`` is a table with one row per probe and rate."""

    arm: str
    model_sha256: str
    probes: DatasetRef
    rates: tuple[Measurement, ...]

    def rate(self, name: str) -> Measurement | None:
        """The named rate, or None when the red team does not know it."""
        return next((rate for rate in self.rates if rate.name == name), None)


class RedTeamReport(Contract):
    """The same probes put to every arm of the benchmark."""

    arms: tuple[RedTeamArm, ...]

    def arm(self, name: str) -> RedTeamArm | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class Judgement(Contract):
    """What a language model found the candidate's replies worth beside an opponent's; each pair was shown in both orders.

    A verdict that changed with the order is a tie, and a tie is half a win. ``num_unjudged`` pairs got no verdict.
    """

    opponent: str
    judge: str
    win_rate: Measurement
    num_wins: int
    num_ties: int
    num_losses: int
    num_unjudged: int


class AnsweredSet(Contract):
    """The same examples answered by every arm (``base``, ``candidate``, ``champion`` when there is one)."""

    dataset: DatasetRef
    arms: tuple[ArmScores, ...]

    def arm(self, name: str) -> ArmScores | None:
        """The named arm, or None."""
        return next((arm for arm in self.arms if arm.arm == name), None)


class FreshScores(AnsweredSet):
    """The scores on the fresh set."""


class LatencyRound(Contract):
    """Seconds for the same batches in one round; the opponent answered them twice."""

    candidate: float
    opponent: float
    opponent_again: float


class LatencyRounds(Contract):
    """Candidate and opponent timed in turns, in one sitting on one device."""

    opponent: Literal["champion", "base"]
    num_examples: int
    device: str
    rounds: tuple[LatencyRound, ...]


class BenchmarkReport(AnsweredSet):
    """The scores on the frozen set, and all that they are judged with.

    ``latency`` is None unless a guard on it is configured and there is an opponent. ``fresh`` is the like for the newest
    rows, or None with the reason in ``no_fresh``. ``red_team`` is None, and
    ``judgements`` are none, when the configuration leaves them out.
    """

    red_team: RedTeamReport | None = None
    judgements: tuple[Judgement, ...] = ()
    fresh: FreshScores | None = None
    no_fresh: str = ""
    latency: LatencyRounds | None = None


class PromptArm(Contract):
    """The frozen examples under another prompt: ids, labels and references are those of the frozen set."""

    arm: Literal["prompt", "few-shot", "retrieval"]
    dataset: DatasetRef


class FitArm(Contract):
    """What the base model scores when it is asked in one way, and what that gains over how it is asked today."""

    arm: str
    score: Measurement
    gain: Measurement | None
    reaches_target: bool


class FitVerdict(Contract):
    """Whether training is the right means, and why, in plain words; None when nothing was measured and nothing lacks."""

    verdict: Literal["FINE_TUNE", "PROMPT_IS_ENOUGH", "RAG_FIRST", "NOT_ENOUGH_DATA"] | None
    metric: str
    target: float | None
    arms: tuple[FitArm, ...]
    num_train_rows: int
    num_examples: int
    minimum_detectable_effect: float | None
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()


class Comparison(Contract):
    """A paired difference, candidate minus opponent, with its interval and the rule that judged it."""

    opponent: str
    metric: str
    difference: float
    low: float
    high: float
    num_examples: int
    rule: str
    passed: bool


class PromotionDecision(Contract):
    """What to do with the candidate, and why, in plain words; ``remedies`` says what would change the answer."""

    outcome: Literal["PROMOTE", "HOLD", "NEEDS_HUMAN"]
    primary_metric: str
    comparisons: tuple[Comparison, ...]
    reasons: tuple[str, ...]
    remedies: tuple[str, ...] = ()
    minimum_detectable_effect: float | None = None
    champion_version: str | None = None


class RegisteredVersion(Contract):
    """A model version in the MLflow registry."""

    name: str
    version: str
    run_id: str
    source_uri: str
    aliases: tuple[str, ...] = ()


class Champion(Contract):
    """The reigning champion, with what is needed to benchmark it again."""

    version: RegisteredVersion
    base: BaseLanguageModel
    adapter: FolderRef


class Approval(Contract):
    """A person's word on a candidate: the question, and the answer once there is one; times are ISO 8601 in UTC.

    The registry keeps it as a tag of the model version; that tag is the only record that counts. A question that another
    champion has outdated is ``withdrawn``: nobody may answer it any more. ``also_waiting`` are flow runs that asked the same
    question before and wait for its answer too.
    """

    outcome: Literal["PROMOTE", "NEEDS_HUMAN"]
    champion_version: str | None
    asked_at: str
    expires_at: str | None = None
    flow_run_id: str | None = None
    also_waiting: tuple[str, ...] = ()
    verdict: Literal["approve", "reject", "withdrawn"] | None = None
    by: str | None = None
    reason: str | None = None
    answered_at: str | None = None


class PromotionRecord(Contract):
    """What promotion did: the version that now holds ``champion``, and the one it replaced.

    ``rollout_share`` is the share of the traffic, in per cent, of a candidate whose rollout is under way: it is not champion
    yet. ``late`` says why an answer was not taken; the rest is then what stands.
    """

    candidate: RegisteredVersion
    promoted: bool
    champion_version: str | None
    previous_version: str | None
    reason: str
    approval: Approval | None = None
    rollout_share: int | None = None
    late: str | None = None


class ChampionEvent(Contract):
    """One change, as the registry remembers it; ``at`` is ISO 8601 in UTC, ``by`` the person who approved it or did it.

    ``rollout`` and ``abort`` begin and end a rollout; the champion, ``replaced``, stays what it is.
    """

    action: Literal["promote", "rollback", "rollout", "abort"]
    version: str
    replaced: str | None
    reason: str
    at: str
    by: str | None = None


class RollbackPlan(Contract):
    """What a rollback would do now: ``returns`` gets all the traffic, ``leaves`` none; under ``rollout`` no alias moves."""

    name: str
    returns: str
    leaves: str
    rollout: bool = False
    returns_run: str | None = None
    returns_since: str | None = None


class RunFindings(TrainingSteps):
    """Everything that a run found out before the registry was asked; what promotion and the dossier work from.

    ``flow_run_id`` is whose evidence it is: Prefect's id of the retrain, whichever run writes the dossier.
    """

    run_name: str
    model_name: str
    settings: Mapping[str, Any]
    examples: PreparedDataset
    preferences: PreparedDataset | None
    split: Split
    benchmark: BenchmarkReport
    decision: PromotionDecision
    truth: TruthReport
    flow_run_id: str | None = None
    flow_run_url: str | None = None
    merged: MergedModel | None = None
    fit: FitVerdict | None = None
    mixture: Mixture | None = None
    reason: str | None = None

    @property
    def snapshots(self) -> tuple[str, ...]:
        """The snapshots that the rows trained on descend from."""
        return self.mixture.snapshots if self.mixture else (self.examples.snapshot.dataset.sha256,)


class BusinessPeriod(Contract):
    """What the organisation measured in a period, such as satisfaction; a figure that is absent was not measured."""

    period: str
    model_version: str | None = None
    figures: Mapping[str, float]


class RunEvidence(RunFindings):
    """A run's findings and what the registry made of them; the dossier is its rendering."""

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
    """What a retrain run leaves behind; without promotion and dossier where the flow run ``promoted_by`` sees to them."""

    run_name: str
    decision: PromotionDecision
    promotion: PromotionRecord | None
    dossier: Dossier | None
    promoted_by: str | None = None


# ----------------------------------------------------------------------------------------------------------- monitoring


class LogWindow(Snapshot):
    """The requests of one window of a production log.

    ``dataset`` holds the conversations that can be read, ``lines`` (a table) what is known of every request, without text.
    """

    lines: DatasetRef
    window_start: AwareDatetime
    window_end: AwareDatetime


class Reading(Contract):
    """One figure of a window and whether it breaks its limit; ``violated`` is None where it was not judged, ``note`` why."""

    name: str
    signal: str
    value: float | None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    limit: float | None = None
    num_samples: int = 0
    violated: bool | None = None
    note: str = ""


class DriftReport(Contract):
    """How the window's requests differ from the rows that the champion learned from; ``terms`` is a table of new words."""

    readings: tuple[Reading, ...]
    vectors: str = ""
    reference: DatasetRef | None = None
    terms: DatasetRef | None = None


class WindowCheck(Contract):
    """One window judged: what was measured, which signals were violated, and which of them are worth an alert."""

    model: str
    window_start: AwareDatetime
    window_end: AwareDatetime
    num_requests: int
    status: Literal["healthy", "violated", "insufficient"]
    violated: tuple[str, ...] = ()
    alerted: tuple[str, ...] = ()
    readings: tuple[Reading, ...] = ()
    hours_unwatched: float = 0.0


class CheckHistory(Contract):
    """The windows of a model judged so far, oldest first; the store remembers it under ``monitoring/<model>``."""

    windows: tuple[WindowCheck, ...] = ()


class CheckOutcome(Contract):
    """What a check of production leaves behind; ``runs`` names the runs of ``retrain-on-alert`` by signal."""

    check: WindowCheck
    page: FileRef
    record: FileRef
    pairs: FileRef | None = None
    num_pairs: int = 0
    runs: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


# -------------------------------------------------------------------------------------------------------------- pruning


class Prunable(Contract):
    """One thing that may go: a model version (``<model>/<version>``), or what lies under a name of the store."""

    kind: Literal["model version", "data set", "file", "folder", "work folder", "unfinished write"]
    name: str
    size_bytes: int = Field(ge=0)
    age_days: float


class RegistryMark(Contract):
    """The registries that versions of a model were registered in from a store, by when each made the model.

    The time, in milliseconds since 1970, is the registry's own: it outlives a move of its database to another place, and
    differs in every other registry.
    """

    created_at_ms: tuple[int, ...]


class OldVersions(Contract):
    """The versions of a model that may go, and what all other versions need: digests, and the runs that made them."""

    removable: tuple[Prunable, ...] = ()
    needed: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class PruneReport(Contract):
    """What may go or has gone: totals here as ``(kind, number, bytes)``, each thing in ``listing``.

    ``note`` says why the list leaves out what only the registry could say is not needed.
    """

    removed: bool = False
    note: str = ""
    totals: tuple[tuple[str, int, int], ...] = ()
    listing: FileRef

    @property
    def num_items(self) -> int:
        """How many things."""
        return sum(count for _, count, _ in self.totals)

    @property
    def size_bytes(self) -> int:
        """Their bytes in the store."""
        return sum(size for _, _, size in self.totals)


# --------------------------------------------------------------------------------------------------------------- alerts


class Alert(Contract):
    """A firing alert, reduced to what a retrain needs; labels and annotations stay with the sender."""

    fingerprint: str = Field(pattern=r"^[A-Za-z0-9_.:-]{1,128}$", description="The sender's name for this very alert.")
    model: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The model that it concerns.")
    name: str = Field(min_length=1, max_length=100, description="The alert rule's name.")
    signal: str = Field(
        min_length=1, max_length=100, description="What was measured: drift, feedback, latency. Two alerts may share it."
    )
    sender: Literal["alertmanager", "grafana", "json", "check", "person"] = Field("person", description="Who sent it.")
    starts_at: AwareDatetime = Field(description="When it began to fire.")
    window_start: AwareDatetime = Field(description="Begin of the time whose rows it is about.")
    window_end: AwareDatetime = Field(description="End of that time.")

    @model_validator(mode="after")
    def _window_has_length(self) -> Self:
        if self.window_start >= self.window_end:
            raise ValueError("window_start must lie before window_end")
        return self


class RetrainHistory(Contract):
    """What Prefect remembers about a model's retrains, read when an alert is weighed.

    ``last_ended`` counts runs that came to an end of their own, completed or failed; ``learned_until`` is the end of the
    data of the last completed one. ``signals`` are the different signals that fired lately, the alert's own included.
    """

    open_runs: tuple[str, ...] = ()
    last_ended: AwareDatetime | None = None
    learned_until: AwareDatetime | None = None
    signals: tuple[str, ...] = ()


class NewRows(Contract):
    """Rows of a source that were made after ``since`` (None: ever) and until ``until``."""

    num_rows: int = Field(ge=0)
    since: AwareDatetime | None
    until: AwareDatetime


class AlertDecision(Contract):
    """Whether an alert becomes a retrain, every reason in plain words, and the window of rows it would read."""

    retrain: bool
    reasons: tuple[str, ...]
    created_after: AwareDatetime | None
    created_before: AwareDatetime


class AlertOutcome(Contract):
    """What became of an alert: the decision, and the retrain where there was one."""

    alert: Alert
    decision: AlertDecision
    outcome: RetrainOutcome | None = None
