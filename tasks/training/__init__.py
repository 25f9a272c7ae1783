"""Training: a base model and prepared rows become a LoRA adapter, supervised first, then by preference.

::

    config         the settings
    planning       steps, micro-batches, memory, time (pure)
    execution      one training: preflight, supervision, tracking, result
    supervisor     the parent of a trainer process: attempts, memory ladder, resume
    specification  what parent and trainer tell each other
    worker         the trainer process; with rendering, trainers, grpo, rewards, timing, preference, head, kernels, sharding,
                   ledger, callbacks, checkpoints, adapter, hardware
    merging        adapter and base as one model, verified by generation
    search         trials with other settings (Optuna)
    reporting      the figures of one training as a table (pure)
    task           the Prefect tasks
"""

from typing import TYPE_CHECKING, Any

from tasks.training.config import (
    BaseModelConfig,
    BudgetConfig,
    DpoConfig,
    GrpoConfig,
    KtoConfig,
    LoraSettings,
    SearchConfig,
    SftConfig,
    TrainingConfig,
)

if TYPE_CHECKING:
    from tasks.training.task import (
        merge_adapter,
        resolve_base_model,
        search_sft,
        train_dpo,
        train_grpo,
        train_kto,
        train_sft,
    )

__all__ = [
    "BaseModelConfig",
    "BudgetConfig",
    "DpoConfig",
    "GrpoConfig",
    "KtoConfig",
    "LoraSettings",
    "SearchConfig",
    "SftConfig",
    "TrainingConfig",
    "merge_adapter",
    "resolve_base_model",
    "search_sft",
    "train_dpo",
    "train_grpo",
    "train_kto",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """The Prefect tasks, once they are asked for: the trainer process imports this package too, and needs no Prefect."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tasks.training import task

    return getattr(task, name)
