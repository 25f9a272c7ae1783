"""The adapter that PEFT makes of the settings, and its exact size, found on the meta device before any weight is read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from tasks.core.errors import ConfigError
from tasks.modeling.profile import library_message, model_without_weights
from tasks.training.config import LoraSettings

_SETTING = "training.sft.lora.target_modules"


def lora_config(settings: LoraSettings, base: Path) -> LoraConfig:
    """The settings in PEFT's form for the model in a folder; ``all-linear`` leaves out what LoRA cannot adapt there."""
    targets = settings.target_modules
    excluded = _unadaptable(settings, base) if targets == "all-linear" else []
    return _in_pefts_form(settings, excluded)


def _in_pefts_form(settings: LoraSettings, excluded: Sequence[str]) -> LoraConfig:
    targets = settings.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.r,
        lora_alpha=settings.lora_alpha if settings.lora_alpha is not None else 2 * settings.r,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        layers_to_transform=None if settings.layers_to_transform is None else list(settings.layers_to_transform),
        use_rslora=settings.use_rslora,
        exclude_modules=list(excluded) or None,
    )


def _unadaptable(settings: LoraSettings, base: Path) -> list[str]:
    """Names of linear layers that LoRA cannot adapt, by their last part, sorted.

    Some do more than their product (a router returns its choice of experts); others PEFT refuses, because fused kernels
    read their weights past the adapter (Mamba's ``out_proj``).
    """
    layers = {name.rpartition(".")[2]: layer for name, layer in model_without_weights(base).named_modules()}
    linear = {name: layer for name, layer in layers.items() if isinstance(layer, torch.nn.Linear)}
    excluded = {name for name, layer in linear.items() if not _returns_its_product(layer)}

    def is_refused(targets: str | tuple[str, ...], without: set[str]) -> bool:
        tried = settings.model_copy(update={"target_modules": targets})
        try:
            _adapted(model_without_weights(base), _in_pefts_form(tried, sorted(without)))
        except Exception:  # PEFT raises ValueError, TypeError and others; `count_trainable` reports what remains
            return True
        return False

    if is_refused("all-linear", excluded):
        excluded |= {name for name in linear.keys() - excluded if is_refused((name,), set())}
    return sorted(excluded)


def _returns_its_product(layer: torch.nn.Linear) -> bool:
    """Whether a layer on the meta device returns one tensor of its output's size."""
    output = layer(torch.empty(1, layer.in_features, device="meta", dtype=layer.weight.dtype))
    return isinstance(output, torch.Tensor) and output.shape == (1, layer.out_features)


def _adapted(model: object, config: LoraConfig) -> PeftModel:
    with warnings.catch_warnings(action="ignore"):  # the trainer's log shows them
        return get_peft_model(model, config, low_cpu_mem_usage=True)


def count_trainable(base: Path, lora: LoraSettings | None) -> int:
    """Trainable parameters of an adapter as PEFT puts it on the model in a folder; all parameters without an adapter.

    Raises:
        ConfigError: PEFT refuses the modules, or they include an embedding that the loss or the input also uses directly.
    """
    model = model_without_weights(base)
    if lora is None:
        return int(model.num_parameters())
    try:
        adapted = _adapted(model, lora_config(lora, base))
    except Exception as error:
        raise ConfigError(
            _SETTING,
            f"`{lora.target_modules}`, which PEFT cannot adapt in this base model ({library_message(error)})",
            "modules of the base model that LoRA can adapt",
            "Name modules of this base model in `training.sft.lora.target_modules`, or choose another base model.",
        ) from error
    _check_embeddings(model)
    return int(adapted.get_nb_trainable_parameters()[0])


def _check_embeddings(model: object) -> None:
    """Refuses an adapter on the output, which loss heads read past it, and on an input that is the output at the same time.

    Such an adapter would be trained on one side, and merged into both.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[attr-defined]
    adapted = [name for name, layer in (("input", inputs), ("output", outputs)) if isinstance(layer, BaseTunerLayer)]
    weights = [
        layer.get_base_layer().weight if isinstance(layer, BaseTunerLayer) else layer.weight for layer in (inputs, outputs)
    ]
    tied = weights[0] is weights[1]
    if "output" in adapted or (tied and adapted):
        shared = ", which are one and the same tensor here" if tied else ""
        raise ConfigError(
            _SETTING,
            f"an adapter on the {' and '.join(adapted)} embeddings{shared}",
            "projections inside the layers",
            "Leave the embeddings (`embed_tokens`, `lm_head` or their like) out of `target_modules`, or use `all-linear`.",
        )
