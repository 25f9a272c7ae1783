"""Trains an adapter on prepared rows: supervised fine-tuning, then preferences and rewards if configured."""

from __future__ import annotations

from prefect import flow

from flows.support.gpu_pool import gpu_slot
from flows.support.run_names import name_of
from tasks import training
from tasks.contracts.preparation import Mixture, PreparedDataset, Split
from tasks.contracts.training import BaseLanguageModel, StartingPoint, TrainedModel
from tasks.core.results import CONTRACTS
from tasks.core.storage import open_store


@flow(name="train-adapter", persist_result=True, result_serializer=CONTRACTS, flow_run_name=name_of("train-{experiment}"))
def train_adapter(
    store_uri: str,
    base: BaseLanguageModel,
    mixture: Mixture,
    rows: Split,
    pairs: PreparedDataset | None,
    pair_rows: Split | None,
    settings: training.TrainingConfig,
    experiment: str,
    start: StartingPoint | None = None,
) -> TrainedModel:
    """The trained adapter with its training results; rows that do not descend from their snapshots are rejected.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The resolved base model.
        mixture: The source of the SFT rows; they must descend from its snapshots.
        rows: SFT rows to train and to validate on.
        pairs: The source of the preference pairs, or None.
        pair_rows: Preference pairs to train and to validate on, or None.
        settings: The settings of every method, their budget, and whether to merge.
        experiment: MLflow experiment that receives the curves.
        start: The version that SFT continues; None: a new adapter.
    """
    open_store(store_uri)
    with gpu_slot():
        snapshots = mixture.snapshots
        sft = training.train_sft(
            base,
            train=rows.train,
            validation=rows.validation,
            config=settings.sft,
            snapshots=snapshots,
            experiment=experiment,
            budget=settings.budget,
            start=start,
        )
        dpo = kto = grpo = None
        if pairs is not None and pair_rows is not None:
            preferences = (pairs.snapshot.dataset.sha256,)
            if settings.dpo:
                dpo = training.train_dpo(
                    sft,
                    train=pair_rows.train,
                    validation=pair_rows.validation,
                    config=settings.dpo,
                    snapshots=preferences,
                    experiment=experiment,
                    budget=settings.budget,
                )
            if settings.kto:
                kto = training.train_kto(
                    sft,
                    train=pair_rows.train,
                    validation=pair_rows.validation,
                    config=settings.kto,
                    snapshots=preferences,
                    experiment=experiment,
                    budget=settings.budget,
                )
        if settings.grpo:
            grpo = training.train_grpo(
                tuple(step for step in (sft, dpo, kto) if step),
                train=rows.train,
                validation=rows.validation,
                config=settings.grpo,
                snapshots=snapshots,
                experiment=experiment,
                budget=settings.budget,
            )
        merged = training.merge_adapter(grpo or dpo or kto or sft, rows.train) if settings.merge else None
        return TrainedModel(sft=sft, dpo=dpo, kto=kto, grpo=grpo, merged=merged)
