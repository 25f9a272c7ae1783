"""Training's stages as Prefect tasks."""

from __future__ import annotations

from tasks.contracts import BaseLanguageModel, DatasetRef, TrainingResult
from tasks.modeling.config import BaseModelConfig
from tasks.progress import report_progress
from tasks.stage import stage_task
from tasks.training.config import DpoConfig, SftConfig


@stage_task("resolve_base_model", cached=False)
def resolve_base_model(config: BaseModelConfig, store_uri: str) -> BaseLanguageModel:
    """The base model in the store, converted or copied the first time.

    Not cached by Prefect: its source lies outside the store and may change; finding it again takes a moment.
    """
    from tasks.modeling.resolution import resolve
    from tasks.storage import Store

    return resolve(config, Store(store_uri))


@stage_task("train_sft")
def train_sft(
    base: BaseLanguageModel,
    train: DatasetRef,
    validation: DatasetRef,
    config: SftConfig,
    snapshot_sha256: str,
    experiment: str,
) -> TrainingResult:
    """An adapter that has learned the replies; refuses rows that do not descend from the snapshot."""
    from tasks.training import execution
    from tasks.training.specification import SftMethod

    with report_progress("train_sft", unit="steps") as progress:
        result = execution.train(
            base,
            train,
            validation,
            SftMethod(config=config),
            snapshot_sha256=snapshot_sha256,
            experiment=experiment,
            on_progress=progress,
        )
        progress.finish(_summary(result))
    return result


@stage_task("train_dpo")
def train_dpo(
    sft: TrainingResult,
    train: DatasetRef,
    validation: DatasetRef,
    config: DpoConfig,
    snapshot_sha256: str,
    experiment: str,
) -> TrainingResult:
    """The supervised adapter, trained on to prefer the chosen replies; refuses pairs of another snapshot."""
    from tasks.training import execution
    from tasks.training.specification import DpoMethod

    with report_progress("train_dpo", unit="steps") as progress:
        result = execution.train(
            sft.base,
            train,
            validation,
            DpoMethod(config=config, adapter=sft.adapter),
            snapshot_sha256=snapshot_sha256,
            experiment=experiment,
            on_progress=progress,
        )
        progress.finish(_summary(result))
    return result


def _summary(result: TrainingResult) -> str:
    speed = result.num_tokens / result.seconds if result.seconds else 0.0
    return f"{result.num_steps} steps, {result.num_tokens} tokens in {result.seconds:.0f} s ({speed:.0f} tokens/s)"
