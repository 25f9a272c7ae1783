"""Training's stages as Prefect tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.contracts.references import DatasetRef
from tasks.contracts.training import BaseLanguageModel, MergedModel, SearchReport, StartingPoint, TrainingResult
from tasks.core.stage import stage, stage_progress
from tasks.modeling.config import BaseModelConfig
from tasks.training.config import BudgetConfig, DpoConfig, GrpoConfig, KtoConfig, LoraSettings, SftConfig, TrainingConfig

if TYPE_CHECKING:
    from tasks.training.launch.protocol import Method


def _page(result: TrainingResult) -> str:
    """The plan against the actual training, losses and events. Figures only."""
    from tasks.training.reporting import training_table

    return training_table(result)


@stage(cached=False, unit="models")
def resolve_base_model(config: BaseModelConfig, store_uri: str, lora: LoraSettings | None = None) -> BaseLanguageModel:
    """The base model in the store, converted or copied the first time, once it is known to be one that can be trained.

    Not cached by Prefect: its source lies outside the store and may change. Finding it again takes a moment.

    Args:
        config: Where the model comes from.
        store_uri: Where it goes.
        lora: The adapter that it must be able to take; None: none.

    Raises:
        ModelNotFoundError: The model cannot be found, read or trained.
        ConfigError: Its licence, its chat template or the adapter does not allow the training.
    """
    from tasks.core.storage import open_store
    from tasks.modeling.resolution import resolve
    from tasks.training.plan.adapter_check import check_adapter

    store = open_store(store_uri)
    model = resolve(config, store)
    if lora is not None:
        check_adapter(model.folder, lora, store)
    stage_progress().summarize(f"{model.name}, {model.num_parameters / 1e6:.0f} M parameters")
    return model


@stage()
def check_test_rows(
    base: BaseLanguageModel,
    frozen: DatasetRef,
    fresh: DatasetRef | None,
    pairs: DatasetRef | None = None,
    preference: DpoConfig | KtoConfig | None = None,
) -> BaseLanguageModel:
    """The base model, once its chat template is known to take every row of the test sets, and enough preference rows.

    Args:
        base: The base model.
        frozen: The frozen test set.
        fresh: The fresh one.
        pairs: The preference rows for training, which are read hours later, after the supervised training.
        preference: The settings of that training, with the share of them that it may leave out; None: they are not read.

    Raises:
        InputError: The template refuses a row; after training, the benchmark could not prompt for it.
    """
    from tasks.core.storage import run_store
    from tasks.modeling.resolution import check_evaluated_rows

    check_evaluated_rows(base, [ref for ref in (frozen, fresh) if ref], run_store())
    if pairs is not None and preference is not None:
        check_evaluated_rows(base, [pairs], run_store(), preference.max_refused_share)
    return base


@stage(patient=True, unit="steps", page=_page, key=lambda result: f"train-{result.method}", title="Plan and actual")
def train_sft(
    base: BaseLanguageModel,
    train: DatasetRef,
    validation: DatasetRef,
    config: SftConfig,
    snapshots: tuple[str, ...],
    experiment: str,
    budget: BudgetConfig,
    start: StartingPoint | None = None,
) -> TrainingResult:
    """An adapter trained on the replies; refuses rows that do not descend from the snapshots.

    ``start`` is the version whose adapter is trained further; None: a new adapter on the base model.

    Raises:
        ConfigError: The adapter that is continued has other settings.
        BudgetError: The plan exceeds a ceiling; nothing was trained.
    """
    from tasks.core.storage import run_store
    from tasks.training.launch import execution
    from tasks.training.launch.protocol import SftMethod
    from tasks.training.plan.adapter_check import check_start

    if start is not None:
        check_start(start, base.folder, config.lora, run_store())
    result = execution.train(
        base,
        train,
        validation,
        SftMethod(config=config, start=start),
        snapshots=snapshots,
        experiment=experiment,
        on_progress=stage_progress(),
        budget=budget,
    )
    stage_progress().summarize(_summary(result))
    return result


@stage(patient=True, unit="steps", page=_page, key=lambda result: f"train-{result.method}", title="Plan and actual")
def train_dpo(
    sft: TrainingResult,
    train: DatasetRef,
    validation: DatasetRef,
    config: DpoConfig,
    snapshots: tuple[str, ...],
    experiment: str,
    budget: BudgetConfig,
) -> TrainingResult:
    """The supervised adapter, trained further to prefer the chosen replies; refuses pairs of another snapshot.

    Raises:
        BudgetError: After supervised training, the plan exceeds a ceiling; nothing was trained.
    """
    from tasks.training.launch.protocol import DpoMethod

    method = DpoMethod(config=config, adapter=sft.adapter)
    return _continue((sft,), train, validation, method, snapshots=snapshots, experiment=experiment, budget=budget)


@stage(patient=True, unit="steps", page=_page, key=lambda result: f"train-{result.method}", title="Plan and actual")
def train_kto(
    sft: TrainingResult,
    train: DatasetRef,
    validation: DatasetRef,
    config: KtoConfig,
    snapshots: tuple[str, ...],
    experiment: str,
    budget: BudgetConfig,
) -> TrainingResult:
    """The supervised adapter, trained further towards chosen replies and away from rejected ones, each by itself.

    Raises:
        BudgetError: After supervised training, the plan exceeds a ceiling; nothing was trained.
    """
    from tasks.training.launch.protocol import KtoMethod

    method = KtoMethod(config=config, adapter=sft.adapter)
    return _continue((sft,), train, validation, method, snapshots=snapshots, experiment=experiment, budget=budget)


@stage(patient=True, unit="steps", page=_page, key=lambda result: f"train-{result.method}", title="Plan and actual")
def train_grpo(
    before: tuple[TrainingResult, ...],
    train: DatasetRef,
    validation: DatasetRef,
    config: GrpoConfig,
    snapshots: tuple[str, ...],
    experiment: str,
    budget: BudgetConfig,
) -> TrainingResult:
    """The adapter of the last earlier step, trained further by verifiable rewards. Experimental.

    Raises:
        BudgetError: After the earlier steps, the plan exceeds a ceiling; nothing was trained.
    """
    from tasks.training.launch.protocol import GrpoMethod

    method = GrpoMethod(config=config, adapter=before[-1].adapter)
    return _continue(before, train, validation, method, snapshots=snapshots, experiment=experiment, budget=budget)


@stage(cached=False, patient=True, unit="trials")
def search_sft(
    base: BaseLanguageModel,
    train: DatasetRef,
    validation: DatasetRef,
    config: TrainingConfig,
    snapshots: tuple[str, ...],
    experiment: str,
    study_uri: str,
    num_trials: int,
    device_hours_used: float = 0.0,
    cost_used: float = 0.0,
) -> SearchReport:
    """Trials of supervised training with other settings; not cached, because the study keeps finished trials.

    ``device_hours_used`` and ``cost_used`` are what the trials of other base models took of the budget.

    Raises:
        BudgetError: Not even the first trial is within the budget.
        TrainingError: No trial reached its end.
    """
    from tasks.training import search
    from tasks.training.plan.budget import BudgetUsed

    report = search.search(
        base,
        train,
        validation,
        config,
        snapshots=snapshots,
        experiment=experiment,
        study_uri=study_uri,
        num_trials=num_trials,
        on_progress=stage_progress(),
        budget_used=BudgetUsed(device_hours_used, cost_used),
    )
    stage_progress().summarize(f"{len(report.trials)} trials, lowest validation loss {report.winner.eval_loss:.4f}")
    return report


@stage(unit="models")
def merge_adapter(trained: TrainingResult, rows: DatasetRef) -> MergedModel:
    """The trained adapter merged into its base, after both generated the same replies.

    Args:
        trained: The last training step.
        rows: Prepared rows, whose first few prompts are continued.

    Raises:
        TrainingError: A reply differs after merging, or after reading the merged model back.
        StoreError: There is too little room.
    """
    from tasks.training.merging import merge_into_base

    merged = merge_into_base(trained, rows)
    size = f"{merged.folder.size_bytes / 1e6:.0f} MB"
    stage_progress().summarize(f"{size}, {merged.num_compared_tokens} tokens compared, all equal")
    return merged


def _continue(
    before: tuple[TrainingResult, ...],
    train: DatasetRef,
    validation: DatasetRef,
    method: Method,
    *,
    snapshots: tuple[str, ...],
    experiment: str,
    budget: BudgetConfig,
) -> TrainingResult:
    """A training that continues earlier ones, and their use of the budget."""
    from tasks.training.launch import execution
    from tasks.training.plan.budget import BudgetUsed

    result = execution.train(
        before[-1].base,
        train,
        validation,
        method,
        snapshots=snapshots,
        experiment=experiment,
        on_progress=stage_progress(),
        budget=budget,
        budget_used=BudgetUsed(sum(step.device_hours for step in before), sum(step.cost or 0.0 for step in before)),
    )
    stage_progress().summarize(_summary(result))
    return result


def _summary(result: TrainingResult) -> str:
    speed = result.num_tokens / result.seconds if result.seconds else 0.0
    return f"{result.num_steps} steps, {result.num_tokens} tokens in {result.seconds:.0f} s ({speed:.0f} tokens/s)"
