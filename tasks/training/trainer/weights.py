"""A trainer's weights: the base model in the plan's precision, the adapter on it, and both on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel

from tasks.contracts.training import TrainingPlan
from tasks.modeling.loading import load_base
from tasks.modeling.profile import name_experts
from tasks.training.trainer import kernels
from tasks.training.trainer.sharding import check_sharded, loading_options, own_weights


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
    name_parts(model)
    if plan.liger_kernel:
        kernels.fuse_layers(model)
    return model.train()


def name_parts(model: Any) -> None:
    """Names what TRL's loss heads ask for where a class has another name or none: the part below the head, the experts."""
    name_experts(model.config.get_text_config())
    names = [name for name, part in model.named_children() if isinstance(part, PreTrainedModel)]
    if model.base_model is model and len(names) == 1:
        model.base_model_prefix = names[0]


def load_model_with(base: Path, adapter: Path, plan: TrainingPlan) -> Any:
    """The base model with an adapter that training continues."""
    return PeftModel.from_pretrained(load_model(base, plan), str(adapter), is_trainable=True, use_safetensors=True)


def save_weights(trainer: Any, folder: Path) -> bool:
    """Writes the trained adapter, without the frozen reference beside it, or all weights after full fine-tuning.

    Every process calls it; it returns True in the one that wrote.
    """
    if not trainer.is_world_process_zero():
        return False
    model = trainer.accelerator.unwrap_model(trainer.model)
    options: dict[str, Any] = {}
    if isinstance(model, PeftModel):
        # Without a state dict PEFT would gather the base too, only to leave it out.
        options = {"selected_adapters": ["default"], "state_dict": own_weights(model)}
    model.save_pretrained(str(folder), **options)
    return True


def load_weights(trainer: Any, folder: Path) -> None:
    """Loads the weights that :func:`save_weights` wrote into the model."""
    trainer.accelerator.wait_for_everyone()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        weights = load_file(str(folder / "adapter_model.safetensors"))
        set_peft_model_state_dict(model, weights, adapter_name="default")
    else:
        for path in sorted(folder.glob("*.safetensors")):
            # Tied weights are stored once, so some names are missing.
            model.load_state_dict(load_file(str(path)), strict=False)
