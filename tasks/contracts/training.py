"""The base model, the plan and the results of training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FolderRef


class BaseLanguageModel(Contract):
    """The base model, resolved to a folder in the store in the format of transformers."""

    name: str
    folder: FolderRef
    license: str
    num_parameters: int
    note: str = ""


class StartingPoint(Contract):
    """The version whose adapter a training continues; ``ancestors`` are the versions that it grew from, oldest first."""

    version: str
    adapter: FolderRef
    ancestors: tuple[str, ...] = ()

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version whose rows the training has learned from."""
        return (*self.ancestors, self.version)


class Start(Contract):
    """What a training starts from: a version, or the base model (None); ``reason`` says so in words.

    ``learned`` are the training rows of the version and of its ancestors, as far as the store holds them.
    """

    point: StartingPoint | None = None
    reason: str = "the base model"
    learned: tuple[DatasetRef, ...] = ()


class TrainingPlan(Contract):
    """The plan of a training, computed before it starts."""

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
        """Number of billed devices: every GPU, or one machine for CPU training."""
        return self.num_processes if self.device == "cuda" else 1

    @property
    def num_epochs(self) -> float:
        """Passes over the rows in the planned steps; packed rows are counted as sequences."""
        num_sequences = self.num_sequences or self.num_rows
        per_step = self.micro_batch_size * self.accumulation_steps * self.num_processes
        return self.num_steps / max(1, math.ceil(num_sequences / per_step))  # the last step of an epoch may be smaller

    @property
    def device_hours(self) -> float:
        """Planned hours, over all devices."""
        return self.device_hours_of(self.estimated_seconds)

    @property
    def cost(self) -> float | None:
        """Planned cost in ``currency``; None if no price is configured for this device."""
        return self.cost_of(self.estimated_seconds)

    def device_hours_of(self, seconds: float) -> float:
        """Device-hours of ``seconds`` of this training, over all devices."""
        return seconds * self.num_devices / 3600

    def cost_of(self, seconds: float) -> float | None:
        """The cost of ``seconds`` of this training, in ``currency``."""
        return None if self.price_per_device_hour is None else self.device_hours_of(seconds) * self.price_per_device_hour


class TrainingResult(Contract):
    """A trained adapter (safetensors) with its manifest, curves and history of attempts.

    ``num_trained_rows`` are the different rows of the ledger, fewer than the data set has where the steps end before all are
    drawn; None without a ledger (GRPO, records of older releases). ``started_from`` is None where a supervised training
    started from the base model.
    """

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
    num_trained_rows: int | None = None
    started_from: StartingPoint | None = None

    @property
    def num_rows(self) -> int:
        """Rows trained on, by the ledger; without one those that were planned."""
        return self.plan.num_rows if self.num_trained_rows is None else self.num_trained_rows

    @property
    def device_hours(self) -> float:
        """Used hours, over all devices; ``plan`` has the planned ones."""
        return self.plan.device_hours_of(self.seconds)

    @property
    def cost(self) -> float | None:
        """The cost in the plan's currency, at the price at the time; None if no price was configured."""
        return self.plan.cost_of(self.seconds)


class BudgetRequest(Contract):
    """A request for manual approval of a training above its ceiling, and the answer; times are ISO 8601 in UTC."""

    training: str
    device: str
    device_hours: float
    cost: float | None
    currency: str
    question: str
    requested_at: str
    verdict: Literal["allow", "refuse"] | None = None
    by: str | None = None
    reason: str | None = None
    answered_at: str | None = None


class SearchTrial(Contract):
    """One trial of a search: its settings (None: not searched) and its validation loss (None unless it is complete).

    A complete trial has its ``adapter``, the most memory that it held, and its cost (None without a price).
    """

    outcome: Literal["complete", "pruned", "failed"]
    learning_rate: float
    num_train_epochs: float | None = None
    r: int | None = None
    eval_loss: float | None = None
    device_hours: float = 0.0
    adapter: FolderRef | None = None
    peak_memory_bytes: int = 0
    cost: float | None = None


class SearchedBase(Contract):
    """A base model of a search over several: its best trial, and the scores on the validation rows before and after it.

    Losses per token do not compare models with different tokenizers, so the bases are compared by their replies.
    """

    base: BaseLanguageModel
    winner: SearchTrial
    num_trials: int
    untrained: Measurement
    score: Measurement
    reply_tokens: Measurement


class SearchReport(Contract):
    """All trials of a study in order; ``best`` is the index of the trial with the lowest validation loss.

    A search over several base models has them in ``bases``, in the order of the configuration; the study is that of
    ``best_base``, and ``metric`` chose it.
    """

    study: str
    trials: tuple[SearchTrial, ...]
    best: int
    notes: tuple[str, ...] = ()
    bases: tuple[SearchedBase, ...] = ()
    best_base: int = 0
    metric: str = ""
    currency: str = ""

    @property
    def winner(self) -> SearchTrial:
        """The best trial."""
        return self.trials[self.best]


class MergedModel(Contract):
    """The base model with the merged adapter: a whole model in float32 safetensors, with tokenizer and manifest.

    ``num_compared_tokens`` greedily generated tokens were equal before merging, after it and after reading it back.
    """

    folder: FolderRef
    base_sha256: str
    adapter_sha256: str
    num_compared_tokens: int = Field(gt=0)


class TrainingSteps(Contract):
    """SFT, then DPO or KTO if there are preference pairs, then GRPO if rewards are configured."""

    sft: TrainingResult
    dpo: TrainingResult | None = None
    kto: TrainingResult | None = None
    grpo: TrainingResult | None = None

    @property
    def steps(self) -> tuple[TrainingResult, ...]:
        """The executed training steps in order."""
        return tuple(step for step in (self.sft, self.dpo, self.kto, self.grpo) if step is not None)

    @property
    def trained(self) -> TrainingResult:
        """The last training step: its adapter is the candidate."""
        return self.steps[-1]


class TrainedModel(TrainingSteps):
    """The training steps, and the merged model if configured."""

    merged: MergedModel | None = None

    @property
    def adapter(self) -> FolderRef:
        """The adapter of the last training step."""
        return self.trained.adapter
