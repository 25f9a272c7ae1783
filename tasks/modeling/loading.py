"""Base models and adapters in memory, ready for generation or training; safetensors only, never code from a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from tasks.core.errors import ModelNotFoundError, TrainingError
from tasks.modeling.profile import SETTING, library_message
from tasks.modeling.templates import all_prepared


def best_device() -> str:
    """``cuda`` when there is one, else ``cpu``."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def best_dtype(device: str) -> torch.dtype:
    """bfloat16 if the hardware computes in it, else float32.

    A CPU without AVX512-BF16 or AMX emulates bfloat16 and is many times slower than in float32.
    """
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else torch.float32


def load_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, with a padding token: the end of sequence if it has none.

    Its chat templates are the prepared ones, also when a library renders them.

    Raises:
        ModelNotFoundError: transformers cannot load it, or neither it nor the model names a token that ends a sequence.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # each tokenizer's library has errors of its own
        raise ModelNotFoundError(
            SETTING,
            f"a tokenizer that transformers cannot load ({library_message(error)})",
            "a tokenizer beside the model's weights",
            "Install the package that the message names, or save the tokenizer again with `save_pretrained`.",
        ) from error
    if tokenizer.eos_token is None:
        tokenizer.eos_token = _end_in_configuration(folder, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = all_prepared(tokenizer.chat_template)
    return tokenizer


def _end_in_configuration(folder: Path, tokenizer: Any) -> str:
    """The token that the model's configuration names as the end of a sequence."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    end = config.get_text_config().eos_token_id
    if isinstance(end, list):
        end = end[0]
    if end is None:
        raise ModelNotFoundError(
            SETTING,
            "a tokenizer and a configuration without an end-of-sequence token",
            "one, which ends every reply",
            "Set `eos_token` in the model's tokenizer_config.json.",
        )
    token: str = tokenizer.convert_ids_to_tokens(end)
    return token


def load_base(
    folder: Path, *, device: str | None = None, dtype: torch.dtype | None = None, quantization: str = "none", **options: Any
) -> Any:
    """The base model in evaluation mode.

    Args:
        folder: A resolved model folder.
        device: :func:`best_device` when None.
        dtype: :func:`best_dtype` when None.
        quantization: ``none``, or ``nf4``: 4-bit NormalFloat with double quantisation (QLoRA, arXiv 2305.14314).
        **options: More arguments for ``from_pretrained``, such as ``attn_implementation``.

    Raises:
        ModelNotFoundError: transformers cannot load the folder.
    """
    device = device or best_device()
    dtype = dtype or best_dtype(device)
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
        )
        options["device_map"] = {"": device}
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False, **options
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        attention = options.get("attn_implementation")
        raise ModelNotFoundError(
            str(folder),
            f"a model that transformers cannot load ({library_message(error)})",
            "a causal language model",
            "Check that this transformers release knows the architecture"
            + (f", with `attn_implementation: {attention}`." if attention else "."),
        ) from error
    if quantization == "none":
        model = model.to(device)
    return model.eval()


def load_with_adapter(folder: Path, adapter: Path, *, merge: bool = False, **options: Any) -> Any:
    """The base model with an adapter on top, in evaluation mode.

    Args:
        folder: A resolved model folder.
        adapter: Folder of a trained adapter, or of the whole model that full fine-tuning stores.
        merge: Whether to merge the adapter into the base: faster, equal up to rounding.
        **options: As for :func:`load_base`.

    Raises:
        TrainingError: The merged model is another than the one that was trained.
    """
    if not (adapter / "adapter_config.json").is_file():
        return load_base(adapter, **options)
    model = PeftModel.from_pretrained(load_base(folder, **options), str(adapter), use_safetensors=True)
    return _merged(model.eval(), adapter) if merge else model.eval()


MAX_MERGE_DIFFERENCE = 0.1
"""Of next-token probabilities, in total variation. Rounding to bfloat16 causes .01 to .03; a layer that shares its weights
with another, as much as training changed."""
_NUM_COMPARED = 32


def _merged(model: Any, adapter: Path) -> Any:
    """The adapter in the base's weights, compared once with the model as it was trained."""
    expected = _next_tokens(model)
    with model.disable_adapter():
        learned = _difference(_next_tokens(model), expected)
    merged = model.merge_and_unload(safe_merge=True).eval()
    difference = _difference(_next_tokens(merged), expected)
    limit = max(MAX_MERGE_DIFFERENCE, learned / 2)
    if not difference <= limit:  # also where it is not a number
        raise TrainingError(
            f"adapter {adapter.name[:12]}",
            f"a merged model whose next-token probabilities differ by {difference:.3f} from the trained one's",
            f"at most {limit:.3f}; training changed them by {learned:.3f}",
            "Leave layers that share weights with others, such as embeddings, out of `training.sft.lora.target_modules`.",
        )
    return merged


def _difference(first: torch.Tensor, second: torch.Tensor) -> float:
    """The total variation between distributions, mean over places."""
    return float((first - second).abs().sum(dim=-1).mean() / 2)


def _next_tokens(model: Any) -> torch.Tensor:
    """Next-token probabilities after each of a few tokens spread over the vocabulary, ``(num_tokens, vocab_size)``."""
    num_tokens = len(model.get_input_embeddings().weight)
    ids = torch.linspace(0, num_tokens - 1, _NUM_COMPARED).long().unsqueeze(0).to(model.device)
    with torch.inference_mode():
        probabilities: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0].float().softmax(dim=-1)
    return probabilities
