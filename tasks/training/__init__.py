"""Training: a base model and prepared rows become a LoRA adapter, supervised first, then by preference.

::

    config     the settings
    task       the Prefect tasks
    search     trials with other settings (Optuna)
    merging    adapter and base as one model, verified by generation
    reporting  the figures of one training as a page (pure)
    examples   rows as the tokens that a method learns from (pure)
    launch/    starts trainer processes, follows them, stores what they leave
    trainer/   what runs in the trainer process
    plan/      what a training will take, and what forbids it
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
        check_test_rows,
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
    "check_test_rows",
    "merge_adapter",
    "resolve_base_model",
    "search_sft",
    "train_dpo",
    "train_grpo",
    "train_kto",
    "train_sft",
]


def __getattr__(name: str) -> Any:
    """The Prefect tasks, imported on first use: the trainer process imports this package too, and needs no Prefect."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tasks.training import task

    return getattr(task, name)
