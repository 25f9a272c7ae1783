"""TRL's trainers set up by plan: the model with its adapter, the rendered rows, the arguments. The only importer of TRL."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import LoraConfig, PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from tasks.contracts import TrainingPlan
from tasks.modeling.loading import load_base
from tasks.training.config import DpoConfig, LoraSettings, SftConfig, TrainerConfig
from tasks.training.head import score_labels_only
from tasks.training.rendering import Example, Pair

logger = logging.getLogger(__name__)

# Curves of a long run keep about this many points.
_MAX_LOGGED_STEPS = 1000


class _RenderedDpoTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer on rows that are tokens already; SFTTrainer takes those as they are, DPOTrainer does not yet."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def load_model(base: Path, plan: TrainingPlan) -> Any:
    """The base model in the plan's precision on its device, in training mode."""
    device = "cuda" if plan.device == "cuda" else "cpu"
    model = load_base(
        base,
        device=device,
        dtype=getattr(torch, plan.precision),
        quantization=plan.quantization,
        attn_implementation=plan.attn_implementation,
    )
    model.config.use_cache = False
    return model.train()


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
        **_common_arguments(plan, config, output_dir),
        loss_type=config.loss_type,
        max_length=plan.max_length_tokens if plan.packing else None,
        packing=plan.packing,
        eval_packing=False,
    )
    trainer = SFTTrainer(
        model=load_model(base, plan),
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_examples(train),
        eval_dataset=_examples(validation) if validation else None,
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
) -> Any:
    """A trainer that continues the supervised adapter on preference pairs, with that adapter frozen as the reference."""
    losses = [config.loss_type] if isinstance(config.loss_type, str) else list(config.loss_type)
    arguments = DPOConfig(
        **_common_arguments(plan, config, output_dir),
        loss_type=losses,
        loss_weights=list(config.loss_weights) if config.loss_weights else None,
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        max_length=plan.max_length_tokens,
        precompute_ref_log_probs=True,
    )
    model = PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True)
    trainer = _RenderedDpoTrainer(
        model=model,
        args=arguments,
        processing_class=tokenizer,
        train_dataset=_pairs(train),
        eval_dataset=_pairs(validation) if validation else None,
    )
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


def load_adapter_weights(model: Any, folder: Path) -> None:
    """Puts the adapter kept in ``folder`` back into the model."""
    set_peft_model_state_dict(model, load_file(str(folder / "adapter_model.safetensors")), adapter_name="default")


def preference_rates(trainer: Any, pairs: Sequence[Pair], *, with_base: bool) -> dict[str, float]:
    """The share of pairs whose chosen reply is likelier than the rejected one, under the model and under its base.

    Args:
        trainer: A trainer from :func:`dpo_trainer`.
        pairs: Held-out pairs.
        with_base: Whether to measure the base model (adapter off) too.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        rates = {"model": _preference_rate(trainer, model, pairs)}
        if with_base:
            with model.disable_adapter():
                rates["base"] = _preference_rate(trainer, model, pairs)
    model.train(was_training)
    return rates


def _preference_rate(trainer: Any, model: Any, pairs: Sequence[Pair]) -> float:
    size = trainer.args.per_device_eval_batch_size
    ordered = sorted(pairs, key=len, reverse=True)
    preferred = 0
    for start in range(0, len(ordered), size):
        rows = [_pair_columns(pair) for pair in ordered[start : start + size]]
        batch = {name: value.to(trainer.args.device) for name, value in trainer.data_collator(rows).items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        scores = model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(dim=1)
        chosen, rejected = scores.chunk(2)
        preferred += int((chosen > rejected).sum())
    return preferred / len(ordered)


def _finished(trainer: Any, plan: TrainingPlan) -> Any:
    # TRL's own loss head scores every position on a CPU, prompts and padding included.
    if plan.device == "cpu" and plan.num_trainable_parameters < plan.num_parameters:
        score_labels_only(trainer.model.get_base_model())
    return trainer


def _common_arguments(plan: TrainingPlan, config: TrainerConfig, output_dir: Path) -> dict[str, Any]:
    on_cpu = plan.device == "cpu"
    optimizer = "adamw_torch_fused" if config.optim == "adamw_torch" and not on_cpu else config.optim
    return {
        "output_dir": str(output_dir),
        "use_cpu": on_cpu,
        "bf16": plan.precision == "bfloat16",
        "per_device_train_batch_size": plan.micro_batch_size,
        "per_device_eval_batch_size": max(1, plan.micro_batch_size),
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
        "train_sampling_strategy": "random" if plan.packing else "group_by_length",
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


def _examples(rows: Sequence[Example]) -> Any:
    return datasets.Dataset.from_dict(
        {
            "input_ids": [row.input_ids for row in rows],
            "labels": [row.labels for row in rows],
            "length": [len(row) for row in rows],
        }
    )


def _pairs(rows: Sequence[Pair]) -> Any:
    return datasets.Dataset.from_list([{**_pair_columns(row), "length": len(row)} for row in rows])


def _pair_columns(pair: Pair) -> dict[str, list[int]]:
    return {"prompt_ids": pair.prompt_ids, "chosen_ids": pair.chosen_ids, "rejected_ids": pair.rejected_ids}
