"""The adapter that PEFT makes of the settings, and its exact size, found on the meta device before any weight is read."""

from __future__ import annotations

import warnings
from pathlib import Path

from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer

from tasks.core.errors import ConfigError
from tasks.modeling.profile import library_message, model_without_weights
from tasks.training.config import LoraSettings

_SETTING = "training.sft.lora.target_modules"


def lora_config(settings: LoraSettings) -> LoraConfig:
    """The settings in PEFT's form."""
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


def count_trainable(base: Path, lora: LoraSettings | None) -> int:
    """Trainable parameters of an adapter as PEFT puts it on the model in a folder; all parameters without an adapter.

    Raises:
        ConfigError: PEFT refuses the modules, or they include an embedding that the loss or the input also uses directly.
    """
    model = model_without_weights(base)
    if lora is None:
        return int(model.num_parameters())
    try:
        with warnings.catch_warnings(action="ignore"):  # the trainer's log shows them
            adapted = get_peft_model(model, lora_config(lora), low_cpu_mem_usage=True)
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
