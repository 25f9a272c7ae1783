"""TRL's trainers, set up by plan: the model with its adapter, the rendered rows, the arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer, pack_dataset

from tasks.contracts.training import TrainingPlan
from tasks.training.config import DpoConfig, KtoConfig, SftConfig, TrainerConfig
from tasks.training.examples import Example, Pair, RatedReply
from tasks.training.plan.adapters import lora_config
from tasks.training.plan.planning import MASKED_ATTENTION, PACKED_ATTENTION
from tasks.training.trainer import kernels, weights
from tasks.training.trainer.batches import ROW_NUMBERS, MismatchedReplyCollator, RowIdCollator, dataset_of
from tasks.training.trainer.head import choose_head
from tasks.training.trainer.ledger import RowLedger
from tasks.training.trainer.sampler import EpochSampler
from tasks.training.trainer.sharding import own_weights

# Curves of a long run keep about this many points.
_MAX_LOGGED_STEPS = 1000


class RowTracking:
    """What every trainer here does differently from TRL's.

    It reads rows that are tokens already, draws them in the order of :mod:`~tasks.training.trainer.sampler`, and records in
    the ledger which rows each batch trains on.

    Attributes:
        ledger: Where the rows of each training batch are recorded; None records nothing.
        row_ids: The rows' ids in the order of their numbers; empty unless rows are packed.
    """

    ledger: RowLedger | None = None
    row_ids: Sequence[str] = ()

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        return EpochSampler(self, self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """TRL's loss of a batch, whose row ids go to the ledger."""
        row_ids = inputs.pop("row_ids", None)
        if row_ids and self.ledger is not None and model.training:
            self.ledger.draw(row_ids)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _save(self: Any, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is None and self.is_distributed_loading_by_transformers:
            state_dict = own_weights(self.model)
        super()._save(output_dir, state_dict)  # type: ignore[misc]


class _SftTrainer(RowTracking, SFTTrainer):  # type: ignore[misc]
    """TRL packs tokens and labels alone; here every token keeps the number of its row."""

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, arguments: Any, packing: bool, *args: Any) -> Any:
        if not packing:
            return dataset
        self.row_ids = dataset["row_id"][:]
        numbered = dataset.map(lambda row, number: {ROW_NUMBERS: [number] * len(row["input_ids"])}, with_indices=True)
        columns = numbered.select_columns(["input_ids", "labels", ROW_NUMBERS])
        return pack_dataset(columns.shuffle(seed=arguments.seed), arguments.max_length, arguments.packing_strategy)


class _DpoTrainer(RowTracking, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer that reports progress while it computes the reference.

    Args:
        alive: Called after every batch of the reference, which is computed before training and may take hours.
        **kwargs: As for TRL's.
    """

    def __init__(self, *, alive: Callable[[], None], **kwargs: Any) -> None:
        self._alive = alive
        super().__init__(**kwargs)

    def compute_ref_log_probs(self, model: Any, inputs: dict[str, Any]) -> Any:
        inputs.pop("row_ids", None)
        result = super().compute_ref_log_probs(model, inputs)
        self._alive()
        return result


class _KtoTrainer(RowTracking, KTOTrainer):  # type: ignore[misc]
    """TRL's trainer with row tracking."""


def sft_trainer(
    base: Path,
    adapter: Path | None,
    tokenizer: Any,
    plan: TrainingPlan,
    config: SftConfig,
    train: Sequence[Example],
    validation: Sequence[Example],
    output_dir: Path,
) -> Any:
    """A trainer for supervised fine-tuning of the base model with a new adapter, or with one that it continues."""
    arguments = SFTConfig(
        **common_arguments(plan, config, output_dir),
        loss_type=config.loss_type,
        max_length=plan.max_length_tokens if plan.packing else None,
        packing=plan.packing,
        eval_packing=False,
    )
    trainer = _SftTrainer(
        model=weights.load_model(base, plan) if adapter is None else weights.load_model_with(base, adapter, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train),
        eval_dataset=dataset_of(validation) if validation else None,
        peft_config=None if config.lora is None or adapter is not None else lora_config(config.lora, base),
    )
    if plan.packing and plan.attn_implementation in MASKED_ATTENTION:
        kernels.check_separate_rows(trainer.model)
    return _complete(trainer, plan)


def dpo_trainer(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: DpoConfig,
    train: Sequence[Pair],
    validation: Sequence[Pair],
    output_dir: Path,
    alive: Callable[[], None] = lambda: None,
) -> Any:
    """A trainer that continues the supervised adapter on preference pairs, with that adapter frozen as the reference.

    ``alive`` is called while the reference's log-probabilities are computed.
    """
    losses = [config.loss_type] if isinstance(config.loss_type, str) else list(config.loss_type)
    arguments = DPOConfig(
        **common_arguments(plan, config, output_dir),
        loss_type=losses,
        loss_weights=list(config.loss_weights) if config.loss_weights else None,
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        max_length=plan.max_length_tokens,
        # TRL hashes the weights for its cache of the reference, which fails where a process holds a part of them.
        precompute_ref_log_probs=plan.sharding == "none",
    )
    trainer = _DpoTrainer(
        alive=alive,
        model=weights.load_model_with(base, adapter, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train),
        eval_dataset=dataset_of(validation) if validation else None,
    )
    return _complete(trainer, plan)


def kto_trainer(
    base: Path,
    adapter: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: KtoConfig,
    train: Sequence[RatedReply],
    validation: Sequence[RatedReply],
    output_dir: Path,
) -> Any:
    """A trainer that continues the supervised adapter on rated replies, with that adapter frozen as the reference.

    The reference is computed in every step, because its part of the KL term is that of the micro-batch. Rows are not grouped
    by length, or the term would be estimated from replies of one length at a time.
    """
    arguments = KTOConfig(
        **{**common_arguments(plan, config, output_dir), "train_sampling_strategy": "sequential"},
        loss_type=config.loss_type,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        # A prompt with another row's reply may be longer than any row; it is cut to the planned length.
        max_length=max(len(row) for row in (*train, *validation)),
    )
    trainer = _KtoTrainer(
        model=weights.load_model_with(base, adapter, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train).remove_columns("length"),
        eval_dataset=dataset_of(validation) if validation else None,
    )
    if trainer.calculate_KL:
        trainer.data_collator = MismatchedReplyCollator(trainer.data_collator)
    return _complete(trainer, plan)


def enable_ddp_wrapping(trainer: Any) -> None:
    """Makes training wrap the model for several processes; without it each process would train an adapter of its own.

    accelerate marks a model as prepared when it is evaluated, and so considers it wrapped before training begins.
    """
    trainer.model._is_accelerate_prepared = False


def _complete(trainer: Any, plan: TrainingPlan) -> Any:
    # TRL's own loss head scores every position on a CPU, prompts and padding included.
    if plan.device == "cpu" and plan.attn_implementation != PACKED_ATTENTION:
        has_adapter = plan.num_trainable_parameters < plan.num_parameters
        choose_head(trainer.model.get_base_model() if has_adapter else trainer.model, frozen=has_adapter)
    kernels.fuse_adapters(trainer.model)
    trainer.data_collator = RowIdCollator(trainer.data_collator, trainer.row_ids)
    return trainer


def common_arguments(plan: TrainingPlan, config: TrainerConfig, output_dir: Path) -> dict[str, Any]:
    """The arguments that all trainers share."""
    on_cpu = plan.device == "cpu"
    optimizer = "adamw_torch_fused" if config.optim == "adamw_torch" and not on_cpu else config.optim
    return {
        "output_dir": str(output_dir),
        "use_cpu": on_cpu,
        "bf16": plan.precision == "bfloat16",
        "per_device_train_batch_size": plan.micro_batch_size,
        # Validation rows are not packed.
        "per_device_eval_batch_size": plan.micro_batch_size * max(1, plan.num_rows // (plan.num_sequences or plan.num_rows)),
        "gradient_accumulation_steps": plan.accumulation_steps,
        "gradient_checkpointing": plan.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if plan.gradient_checkpointing else None,
        "max_steps": plan.num_steps,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        # transformers rounds a share up, so that a short run would spend its first step at a learning rate of zero.
        "warmup_steps": int(config.warmup_steps * plan.num_steps) if config.warmup_steps < 1 else int(config.warmup_steps),
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": optimizer,
        "seed": config.seed,
        "data_seed": config.seed,
        # Evaluation only; EpochSampler draws the training rows.
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "logging_steps": max(1, plan.num_steps // _MAX_LOGGED_STEPS),
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        # StepCallback decides when to evaluate and to save.
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": list(config.report_to) or "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
    }
