"""A GGUF file as a folder that transformers reads: float32 safetensors, tokenizer, chat template."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader, LlamaFileType
from transformers import AutoModelForCausalLM, AutoTokenizer

from tasks.core.errors import ModelNotFoundError
from tasks.modeling.dequantization import save_plain


def convert_gguf(path: Path, folder: Path) -> tuple[str, str | None]:
    """Writes the model in Hugging Face format into ``folder``, bit-equal to the weights that transformers dequantised.

    Returns:
        The file's quantisation (such as ``Q4_1``), and its licence if it states one.

    Raises:
        ModelNotFoundError: The file is damaged, or transformers does not know its architecture.
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
    save_plain(model, folder)
    tokenizer.name_or_path = ""
    tokenizer.init_kwargs.pop("name_or_path", None)
    tokenizer.save_pretrained(folder)
    stated = fields.get("general.license")
    file_type = fields.get("general.file_type")
    return (
        LlamaFileType(file_type.contents()).name.removeprefix("MOSTLY_") if file_type else "an unknown type",
        str(stated.contents()) if stated else None,
    )
