"""TRL's trainers set up by plan: the model with its adapter, the rendered rows, the arguments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer, pack_dataset

from tasks.contracts.training import TrainingPlan
from tasks.modeling.loading import load_base
from tasks.training import kernels
from tasks.training.config import DpoConfig, KtoConfig, LoraSettings, SftConfig, TrainerConfig
from tasks.training.head import score_labels_only
from tasks.training.ledger import RowLedger
from tasks.training.ordering import order_rows, other_rows
from tasks.training.rendering import Example, Pair, RatedReply, Rendered
from tasks.training.sharding import check_sharded, loading_options, own_weights

_ROW_NUMBERS = "row_numbers"
# Curves of a long run keep about this many points.
_MAX_LOGGED_STEPS = 1000


class _RowOrder(torch.utils.data.Sampler):  # type: ignore[misc]
    """Draws rows in :func:`~tasks.training.ordering.order_rows`'s order for the epoch that the trainer is in."""

    def __init__(self, trainer: Any, dataset: Any) -> None:
        self._trainer = trainer
        self._lengths = dataset["length"] if "length" in dataset.column_names else [1] * len(dataset)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        arguments = self._trainer.args
        batch_size = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        # Counted in steps: the trainer's own epoch is a fraction, and one short of its end would repeat the order.
        epoch = self._trainer.state.global_step // max(1, -(-len(self) // batch_size))
        return iter(order_rows(self._lengths, batch_size, seed=arguments.seed, epoch=epoch))


class _NamedRows:
    """A data collator that keeps the ids of each sequence's rows beside the tensors.

    Args:
        collate: TRL's own collator.
        names: The ids of all rows in order, by which tokens of packed rows are known.
    """

    def __init__(self, collate: Any, names: Sequence[str]) -> None:
        self._collate = collate
        self._names = names

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self._collate(features)
        if all("row_id" in feature for feature in features):
            batch["row_ids"] = [[feature["row_id"]] for feature in features]
        elif all(_ROW_NUMBERS in feature for feature in features):
            batch["row_ids"] = [[self._names[row] for row in dict.fromkeys(feature[_ROW_NUMBERS])] for feature in features]
        return batch


class _WithOtherReplies:
    """A data collator that puts to every prompt another row's reply too, from which TRL estimates KTO's KL term.

    TRL does so once, for batches in a fixed order. Here the rows come in our order, which is another one in every epoch, and
    what a batch is made into depends on nothing but its rows.

    Args:
        collate: TRL's own collator.
    """

    def __init__(self, collate: Any) -> None:
        self._collate = collate

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        others = other_rows([feature["prompt_ids"] for feature in features])
        replies = [features[other]["completion_ids"] for other in others]
        batch: dict[str, Any] = self._collate(
            [{**feature, "KL_completion_ids": reply} for feature, reply in zip(features, replies, strict=True)]
        )
        return batch


class _Ordered:
    """What all trainers do differently from TRL's.

    They take rows that are tokens already, draw them in our order and tell the ledger which they learn from.

    Attributes:
        ledger: Where the rows of each training batch are noted; None notes nothing.
        row_names: The rows' ids in the order of their numbers; none unless rows are packed.
    """

    ledger: RowLedger | None = None
    row_names: Sequence[str] = ()

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def _get_train_sampler(self: Any, train_dataset: Any = None) -> Any:
        return _RowOrder(self, self.train_dataset if train_dataset is None else train_dataset)

    def compute_loss(self: Any, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        row_ids = inputs.pop("row_ids", None)
        if row_ids and self.ledger is not None and model.training:
            self.ledger.draw(row_ids)
        return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _save(self: Any, output_dir: str | None = None, state_dict: Any = None) -> None:
        if state_dict is None and self.is_distributed_loading_by_transformers:
            state_dict = own_weights(self.model)
        super()._save(output_dir, state_dict)  # type: ignore[misc]


class _OrderedSftTrainer(_Ordered, SFTTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order.

    Rows are packed by TRL, which keeps tokens and labels alone; here every token takes the number of its row along.
    """

    def _prepare_dataset(self, dataset: Any, tokenizer: Any, arguments: Any, packing: bool, *args: Any) -> Any:
        if not packing:
            return dataset
        self.row_names = dataset["row_id"][:]
        numbered = dataset.map(lambda row, number: {_ROW_NUMBERS: [number] * len(row["input_ids"])}, with_indices=True)
        columns = numbered.select_columns(["input_ids", "labels", _ROW_NUMBERS])
        return pack_dataset(columns.shuffle(seed=arguments.seed), arguments.max_length, arguments.packing_strategy)


class _OrderedDpoTrainer(_Ordered, DPOTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order.

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


class _OrderedKtoTrainer(_Ordered, KTOTrainer):  # type: ignore[misc]
    """TRL's trainer with our row order."""


def load_model(base: Path, plan: TrainingPlan) -> Any:
    """The base model in the plan's precision on its device, in training mode."""
    device = "cuda" if plan.device == "cuda" else "cpu"
    kernels.register_packed_attention()
    model = load_base(
        base,
        device=device,
        dtype=getattr(torch, plan.precision),
        quantization=plan.quantization,
        attn_implementation=plan.attn_implementation,
        **loading_options(plan),
    )
    check_sharded(model, plan)
    model.config.use_cache = False
    if plan.liger_kernel:
        kernels.fuse_layers(model)
    return model.train()


def load_model_with(base: Path, adapter: Path, plan: TrainingPlan) -> Any:
    """The base model with an adapter to be trained further."""
    return PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True)


def sft_trainer(
    base: Path,
    tokenizer: Any,
    plan: TrainingPlan,
    config: SftConfig,
    train: Sequence[Example],
    validation: Sequence[Example],
    output_dir: Path,
) -> Any:
    """A trainer for supervised fine-tuning of the base model with a new adapter."""
    arguments = SFTConfig(
        **common_arguments(plan, config, output_dir),
        loss_type=config.loss_type,
        max_length=plan.max_length_tokens if plan.packing else None,
        packing=plan.packing,
        eval_packing=False,
    )
    trainer = _OrderedSftTrainer(
        model=load_model(base, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train),
        eval_dataset=dataset_of(validation) if validation else None,
        peft_config=None if config.lora is None else lora_config(config.lora),
    )
    return _finished(trainer, plan)


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
        # TRL hashes the weights for its cache of the reference, and cannot where a process holds a part of them.
        precompute_ref_log_probs=plan.sharding == "none",
    )
    trainer = _OrderedDpoTrainer(
        alive=alive,
        model=load_model_with(base, adapter, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train),
        eval_dataset=dataset_of(validation) if validation else None,
    )
    return _finished(trainer, plan)


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

    The reference is computed in every step, because its share of the KL term is that of the micro-batch. Rows are not
    grouped by length, or the term would be estimated from replies of one length at a time.
    """
    arguments = KTOConfig(
        **{**common_arguments(plan, config, output_dir), "train_sampling_strategy": "sequential"},
        loss_type=config.loss_type,
        beta=config.beta,
        desirable_weight=config.desirable_weight,
        undesirable_weight=config.undesirable_weight,
        # A prompt with another's reply may be longer than any row; it is cut to what was planned for.
        max_length=max(len(row) for row in (*train, *validation)),
    )
    trainer = _OrderedKtoTrainer(
        model=load_model_with(base, adapter, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=dataset_of(train).remove_columns("length"),
        eval_dataset=dataset_of(validation) if validation else None,
    )
    if trainer.calculate_KL:
        trainer.data_collator = _WithOtherReplies(trainer.data_collator)
    return _finished(trainer, plan)


def lora_config(settings: LoraSettings) -> LoraConfig:
    """The settings as PEFT's."""
    targets = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha if settings.lora_alpha is not None else 2 * settings.r,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=None if settings.layers_to_transform is None else list(settings.layers_to_transform),
        use_rslora=settings.use_rslora,
    )


def save_weights(trainer: Any, folder: Path) -> bool:
    """Writes the trained adapter (not the frozen reference beside it), or all weights after full fine-tuning.

    Called in every process; True in the one that wrote.
    """
    if not trainer.is_world_process_zero():
        return False
    model = trainer.accelerator.unwrap_model(trainer.model)
    options: dict[str, Any] = {}
    if isinstance(model, PeftModel):
        # Of its own accord PEFT would gather the base too, to leave it out.
        options = {"selected_adapters": ["default"], "state_dict": own_weights(model)}
    model.save_pretrained(str(folder), **options)
    return True


def load_weights(trainer: Any, folder: Path) -> None:
    """Puts the weights that :func:`save_weights` wrote back into the model."""
    trainer.accelerator.wait_for_everyone()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        weights = load_file(str(folder / "adapter_model.safetensors"))
        set_peft_model_state_dict(model, weights, adapter_name="default")
    else:
        for path in sorted(folder.glob("*.safetensors")):
            # Tied weights are stored once.
            model.load_state_dict(load_file(str(path)), strict=False)


def let_wrap(trainer: Any) -> None:
    """Lets training wrap the model for several processes, which it must, or each would train an adapter of its own.

    accelerate marks a model as prepared when it is evaluated, and takes one that was evaluated before training for wrapped.
    """
    trainer.model._is_accelerate_prepared = False


def _finished(trainer: Any, plan: TrainingPlan) -> Any:
    # TRL's own loss head scores every position on a CPU, prompts and padding included.
    if plan.device == "cpu" and plan.num_trainable_parameters < plan.num_parameters:
        score_labels_only(trainer.model.get_base_model())
    kernels.fuse_adapters(trainer.model)
    trainer.data_collator = _NamedRows(trainer.data_collator, trainer.row_names)
    return trainer


def common_arguments(plan: TrainingPlan, config: TrainerConfig, output_dir: Path) -> dict[str, Any]:
    """What the arguments of all trainers have in common."""
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
        # Evaluation only; training rows are drawn by _RowOrder.
        "train_sampling_strategy": "group_by_length",
        "length_column_name": "length",
        "remove_unused_columns": False,
        "logging_steps": max(1, plan.num_steps // _MAX_LOGGED_STEPS),
        "logging_nan_inf_filter": False,
        "include_num_input_tokens_seen": "non_padding",
        # Evaluation and saving are decided by StepCallback.
        "eval_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 2,
        "report_to": list(config.report_to) or "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "ddp_find_unused_parameters": False,
    }


def dataset_of(rows: Sequence[Rendered]) -> Any:
    """The rows as a trainer takes them, with their lengths and names."""
    return datasets.Dataset.from_list(
        [{**columns_of(row), "length": row.uncut_length or len(row), "row_id": row.row_id} for row in rows]
    )


def columns_of(row: Rendered) -> dict[str, Any]:
    """A row as TRL's collators take it."""
    if isinstance(row, Example):
        return {"input_ids": row.input_ids, "labels": row.labels}
    if isinstance(row, RatedReply):
        return {"prompt_ids": row.prompt_ids, "completion_ids": row.reply_ids, "label": row.wanted}
    return {"prompt_ids": row.prompt_ids, "chosen_ids": row.chosen_ids, "rejected_ids": row.rejected_ids}
