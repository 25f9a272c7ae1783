"""A GGUF file as a folder that transformers reads: float32 safetensors, tokenizer, chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader, LlamaFileType
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.errors import ModelNotFoundError


def convert_gguf(path: Path, folder: Path) -> tuple[str, str | None]:
    """Writes the model in Hugging Face format into ``folder``; the reload is bit-equal to what transformers dequantised.

    Returns:
        The file's quantisation (such as ``Q4_1``) and the licence that it states, if any.

    Raises:
        ModelNotFoundError: The file is damaged, or its architecture is unknown to transformers.
    """
    try:
        fields = GGUFReader(str(path)).fields
        source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name, "local_files_only": True}
        model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(**source)
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise ModelNotFoundError(
            str(path),
            f"a GGUF file that cannot be read ({type(error).__name__})",
            "a causal language model of an architecture that transformers converts",
            "Download the file again, or name the model's folder in Hugging Face format.",
        ) from error
    # `save_pretrained` refuses a model with a GGUF quantizer attached, although the weights are plain floats by now
    # (transformers 5.23; retry without these lines when it drops the quantizer itself).
    model.hf_quantizer = None
    model.is_quantized = False
    model.quantization_method = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # The path of this machine is neither part of the model nor of its hash.
    model.config._name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(folder)
    stated = fields.get("general.license")
    file_type = fields.get("general.file_type")
    return (
        LlamaFileType(file_type.contents()).name.removeprefix("MOSTLY_") if file_type else "an unknown type",
        str(stated.contents()) if stated else None,
    )
