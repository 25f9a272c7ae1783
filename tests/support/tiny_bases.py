"""Tiny base models of many architectures, with random weights, from the configuration classes of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.support.tiny_model import tiny_tokenizer

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
_EXPERTS: dict[str, Any] = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_GEMMA_3_VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
_MAMBA = {"hidden_size": 64, "num_hidden_layers": 2, "state_size": 8, "intermediate_size": 128, "time_step_rank": 4}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**_SIZES, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", _SIZES),
    "qwen3": ("qwen3", {**_SIZES, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**_SIZES, **_WINDOWS, "query_pre_attn_scalar": 16}),
    "gemma3 text": ("gemma3_text", {**_SIZES, **_WINDOWS, "query_pre_attn_scalar": 16}),
    "gemma3": (
        "gemma3",
        {"text_config": {**_SIZES, **_WINDOWS}, "vision_config": _GEMMA_3_VISION, "mm_tokens_per_image": 4},
    ),
    "mistral, window": ("mistral", {**_SIZES, "sliding_window": 16}),
    "phi3": ("phi3", {**_SIZES, "sliding_window": 16}),
    "granite": ("granite", {**_SIZES, "logits_scaling": 8.0}),
    "cohere": ("cohere", _SIZES),
    "cohere2": ("cohere2", {**_SIZES, **_WINDOWS}),
    "mixtral": ("mixtral", {**_SIZES, **_EXPERTS}),
    "qwen3_moe": ("qwen3_moe", {**_SIZES, **_EXPERTS}),
    "gpt_oss": ("gpt_oss", {**_SIZES, **_WINDOWS, **_EXPERTS}),
    "gpt2": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}),
    "gpt_neox": ("gpt_neox", _SIZES),
    "falcon": ("falcon", {name: value for name, value in _SIZES.items() if name != "head_dim"}),
    "opt": ("opt", {**_SIZES, "ffn_dim": 96, "word_embed_proj_dim": 64}),
    "bloom": ("bloom", {"hidden_size": 64, "n_layer": 2, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 64, "n_layers": 2, "n_heads": 4, "max_seq_len": 256}),
    "mamba": ("mamba", _MAMBA),
    "lfm2": ("lfm2", {**_SIZES, "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "starcoder2": ("starcoder2", _SIZES),
    "olmo2": ("olmo2", _SIZES),
    "stablelm": ("stablelm", _SIZES),
}


def build_tiny_base(name: str, folder: Path, **changes: Any) -> Path:
    """Writes a model of :data:`CONFIGS` and the tiny ChatML tokenizer into ``folder``; the same bytes for the same name.

    Args:
        name: A key of :data:`CONFIGS`.
        folder: Receives the files.
        **changes: Settings of the text configuration to add or replace.
    """
    model_type, settings = CONFIGS[name]
    tokenizer = tiny_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    text = {"vocab_size": len(tokenizer), **ends, **changes}
    if "text_config" in settings:
        settings = {**settings, **ends, "text_config": {**settings["text_config"], **text}}
    else:
        settings = {**settings, **text}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(AutoConfig.for_model(model_type, **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
