"""The messages between launcher and trainer: one JSON file each way, and a line for every event."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel, StartingPoint, TrainingPlan
from tasks.training.config import BudgetConfig, DpoConfig, GrpoConfig, KtoConfig, SftConfig
from tasks.training.plan.budget import BudgetUsed

EXIT_STOPPED = 75
"""The exit code after a requested stop with a checkpoint (EX_TEMPFAIL of sysexits.h: run it again)."""

REFUSED_PLAN = "refused-plan.json"
"""The file in the work folder that holds a plan above its budget."""


class SftMethod(Contract):
    """Supervised fine-tuning of the base model; with a start, of the adapter of an earlier version."""

    kind: Literal["sft"] = "sft"
    config: SftConfig
    start: StartingPoint | None = None

    @property
    def adapter(self) -> FolderRef | None:
        """The adapter that is continued; None: a new one."""
        return self.start.adapter if self.start else None


class ContinuingMethod(Contract):
    """A method after supervised training: it continues an adapter, which is its reference."""

    adapter: FolderRef


class DpoMethod(ContinuingMethod):
    """Preference training on pairs."""

    kind: Literal["dpo"] = "dpo"
    config: DpoConfig


class KtoMethod(ContinuingMethod):
    """Preference training on single replies."""

    kind: Literal["kto"] = "kto"
    config: KtoConfig


class GrpoMethod(ContinuingMethod):
    """Training by verifiable rewards."""

    kind: Literal["grpo"] = "grpo"
    config: GrpoConfig


Method = Annotated[SftMethod | DpoMethod | KtoMethod | GrpoMethod, Field(discriminator="kind")]


class TrainerSpec(Contract):
    """Everything that a trainer process needs."""

    base: BaseLanguageModel
    train: DatasetRef
    validation: DatasetRef | None
    method: Method
    work_dir: str
    store_uri: str
    plan: TrainingPlan | None = None
    plan_only: bool = False
    budget: BudgetConfig = BudgetConfig()
    budget_used: BudgetUsed = BudgetUsed()


class Fault(Contract):
    """An error of :mod:`tasks.core.errors` by its class name and four parts."""

    type: str
    where: str
    found: str
    expected: str
    todo: str


class TrainerReport(Contract):
    """How one trainer process ended; a killed process leaves no report.

    ``refused`` comes with the fault that the user has to correct, ``crashed`` with the exception's class and place as
    detail. ``num_trained_rows`` counts the ledger's different rows; None without a ledger.
    """

    outcome: Literal["planned", "done", "stopped", "out_of_memory", "refused", "crashed"]
    plan: TrainingPlan | None = None
    fault: Fault | None = None
    detail: str = ""
    num_steps: int = 0
    num_tokens: int = 0
    num_trained_rows: int | None = None
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()


class TrainerEvent(Contract):
    """One line of the progress file. ``alive`` shows only that the process is not stuck.

    ``memory_bytes`` is the most memory that the process has held so far.
    """

    kind: Literal["phase", "step", "evaluation", "alive"]
    phase: str = ""
    step: int = 0
    num_steps: int = 0
    epoch: float | None = None
    loss: float | None = None
    reward: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory_bytes: int | None = None
    num_tokens: int = 0
