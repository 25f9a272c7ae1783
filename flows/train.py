"""From prepared rows to an adapter: supervised fine-tuning, then preferences and rewards where they are asked for."""

from __future__ import annotations

from prefect import flow

from flows.gpu import gpu_slot
from tasks import training
from tasks.contracts import BaseLanguageModel, Mixture, PreparedDataset, Split, TrainedModel
from tasks.stage import CONTRACTS
from tasks.storage import open_store


@flow(name="train-adapter", persist_result=True, result_serializer=CONTRACTS, flow_run_name="train-{experiment}")
def train_adapter(
    store_uri: str,
    base: BaseLanguageModel,
    mixture: Mixture,
    rows: Split,
    pairs: PreparedDataset | None,
    pair_rows: Split | None,
    settings: training.TrainingConfig,
    experiment: str,
) -> TrainedModel:
    """The trained adapter and how it came about; training refuses rows that do not descend from their snapshots.

    Args:
        store_uri: The store that every reference is resolved in.
        base: The resolved base model.
        mixture: Where the SFT rows come from; its snapshots are what they must descend from.
        rows: SFT rows to train and to validate on.
        pairs: Where the preference pairs come from, or None.
        pair_rows: Preference pairs to train and to validate on, or None.
        settings: The settings of every method, their budget, and whether to merge.
        experiment: MLflow experiment that receives the curves.
    """
    open_store(store_uri)
    with gpu_slot():
        snapshots = mixture.snapshots
        sft = training.train_sft(base, rows.train, rows.validation, settings.sft, snapshots, experiment, settings.budget)
        dpo = kto = grpo = None
        if pairs is not None and pair_rows is not None:
            learned = (sft, pair_rows.train, pair_rows.validation)
            lineage = ((pairs.snapshot.dataset.sha256,), experiment, settings.budget)
            dpo = training.train_dpo(*learned, settings.dpo, *lineage) if settings.dpo else None
            kto = training.train_kto(*learned, settings.kto, *lineage) if settings.kto else None
        if settings.grpo:
            before = tuple(step for step in (sft, dpo, kto) if step)
            asked = (settings.grpo, snapshots, experiment, settings.budget)
            grpo = training.train_grpo(before, rows.train, rows.validation, *asked)
        merged = training.merge_adapter(grpo or dpo or kto or sft, rows.train) if settings.merge else None
        return TrainedModel(sft=sft, dpo=dpo, kto=kto, grpo=grpo, merged=merged)
