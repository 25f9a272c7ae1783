"""The stages as plain functions for programs and notebooks: without Prefect, MLflow's server or a registry.

The same code decides as in `perennial retrain`, on the same store. What a run adds is left out: reuse of finished stages,
the champion as an opponent, registration, aliases, the dossier; and sources other than `examples`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.support.config import RetrainConfig
    from tasks.contracts.evaluation import BenchmarkReport, PromotionDecision
    from tasks.contracts.preparation import PreparedDataset


def load(config: str | Path) -> RetrainConfig:
    """The settings of a YAML file; call it first, it also points the libraries at the local folder.

    Raises:
        ConfigError: The file or a setting is wrong.
        StoreError: The store cannot be written.
    """
    from perennial.operations.embedded import prepare_environment

    prepare_environment()
    from flows.support.config import load_config, sent_to_prefect

    return sent_to_prefect(load_config(Path(config)))


def prepare(settings: RetrainConfig) -> PreparedDataset:
    """The rows of `examples`, validated, scrubbed and audited, with the frozen test set and the report of each stage.

    Raises:
        InputError: The source cannot be read.
        GateError: A gate rejects the rows.
    """
    from flows.prepare import prepare_dataset

    pii = settings.prepare.pii
    whole = pii.model_copy(update={"rows_per_shard": max(pii.rows_per_shard, settings.examples.max_records)})
    stages = settings.prepare.model_copy(update={"pii": whole})
    return prepare_dataset.fn(settings.examples, stages, settings.store, settings.name)


def score(settings: RetrainConfig, data: PreparedDataset, adapter: str | Path) -> BenchmarkReport:
    """The scores of the base model and of an adapter on it, on the frozen examples and under the red team's attacks.

    Args:
        settings: The base model (`training.base_model`), `benchmark` and `redteam`.
        data: What :func:`prepare` returned.
        adapter: A folder as PEFT's ``save_pretrained`` writes it.

    Raises:
        ModelNotFoundError: The base model or the adapter cannot be read.
    """
    from flows.benchmark import benchmark_models
    from tasks.core.errors import ModelNotFoundError
    from tasks.core.storage import open_store
    from tasks.training import resolve_base_model

    folder = Path(adapter)
    if not (folder / "adapter_config.json").is_file():
        raise ModelNotFoundError(str(folder), "no adapter_config.json", "an adapter's folder", "Save it with PEFT.")
    return benchmark_models.fn(
        store_uri=settings.store,
        base=resolve_base_model(settings.training.base_model, settings.store),
        candidate=open_store(settings.store).add_folder(folder),
        champion=None,
        frozen=data.frozen,
        settings=settings.benchmark,
        findings=(data.scrub.findings,),
        attacks=settings.redteam,
        fresh=data.fresh,
    )


def decide(settings: RetrainConfig, scores: BenchmarkReport) -> PromotionDecision:
    """``PROMOTE``, ``HOLD`` or ``NEEDS_HUMAN``, with the reasons and what would change it; moves no alias."""
    from tasks.core.storage import open_store
    from tasks.promotion import decide_promotion

    open_store(settings.store)
    return decide_promotion(scores, settings.promotion, None)
