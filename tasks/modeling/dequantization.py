"""A model whose weights are quantised in its files, as one with plain weights: an adapter is merged into those alone."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from tasks.core.errors import ModelNotFoundError
from tasks.modeling.profile import SETTING, library_message
from tasks.modeling.weights import quantization_of


def dequantize(source: Path, folder: Path) -> None:
    """Writes the model of a folder with quantised weights (gpt-oss' MXFP4, FP8) into another one, in bfloat16.

    Raises:
        ModelNotFoundError: transformers cannot turn this kind of weights back on a CPU.
    """
    try:
        settings = AutoConfig.from_pretrained(source, local_files_only=True, trust_remote_code=False).quantization_config
        kind = AUTO_QUANTIZATION_CONFIG_MAPPING[settings["quant_method"]]
        if "dequantize" not in inspect.signature(kind.__init__).parameters:
            raise ValueError("transformers offers no `dequantize` for it")
        model = AutoModelForCausalLM.from_pretrained(
            source,
            quantization_config=kind(dequantize=True),
            dtype=torch.bfloat16,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # each kind of quantisation has a library with errors of its own
        raise ModelNotFoundError(
            SETTING,
            f"weights that are already quantised ({quantization_of(source)}) and stay so ({library_message(error)})",
            "weights that LoRA can be merged into: plain floats, MXFP4 or FP8",
            "Name the model that they were made from; with `quantization: nf4` it is quantised while it loads.",
        ) from error
    save_plain(model, folder)


def save_plain(model: Any, folder: Path) -> None:
    """Saves a model whose weights are plain floats now.

    `save_pretrained` refuses a model with a quantizer all the same (transformers 5.23; retry without these lines when it
    removes the quantizer itself).
    """
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # A path of this machine is not part of the model.
    model.config._name_or_path = ""
    model.save_pretrained(folder)
