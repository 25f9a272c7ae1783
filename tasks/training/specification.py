"""What the parent tells a trainer process and what it hears back: one JSON file each way, and a line for every event."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.contracts.base import Contract
from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FolderRef
from tasks.contracts.training import BaseLanguageModel, TrainingPlan
from tasks.training.config import BudgetConfig, DpoConfig, GrpoConfig, KtoConfig, SftConfig
from tasks.training.planning import Spent

EXIT_STOPPED = 75
"""Ended on request after saving a checkpoint (EX_TEMPFAIL of sysexits.h: run it again)."""

REFUSED_PLAN = "refused-plan.json"
"""In the work folder: the plan that went over its budget."""


class SftMethod(Contract):
    """Supervised fine-tuning of the base model."""

    kind: Literal["sft"] = "sft"
    config: SftConfig


class ContinuingMethod(Contract):
    """What the methods after supervised training share: they continue an adapter, which is their reference."""

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
    """Everything that a trainer process needs to know."""

    base: BaseLanguageModel
    train: DatasetRef
    validation: DatasetRef | None
    method: Method
    work_dir: str
    store_uri: str
    plan: TrainingPlan | None = None
    plan_only: bool = False
    budget: BudgetConfig = BudgetConfig()
    spent: Spent = Spent()


class Fault(Contract):
    """An error of :mod:`tasks.core.errors` by its class name and four parts."""

    type: str
    where: str
    found: str
    expected: str
    todo: str


class TrainerReport(Contract):
    """How one trainer process ended. A process that left none was killed.

    ``refused`` comes with the fault that the user has to mend; ``crashed`` with a detail: the exception's class and place.
    """

    outcome: Literal["planned", "done", "stopped", "out_of_memory", "refused", "crashed"]
    plan: TrainingPlan | None = None
    fault: Fault | None = None
    detail: str = ""
    num_steps: int = 0
    num_tokens: int = 0
    train_seconds: float = 0.0
    peak_memory_bytes: int = 0
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()


class TrainerEvent(Contract):
    """One line of the progress file. ``alive`` only says that the process is not stuck.

    ``memory_bytes`` is the most that the process has held so far.
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
