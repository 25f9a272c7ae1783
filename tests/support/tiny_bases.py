"""Tiny base models of many architectures, with random weights, from the configuration classes of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from tests.support.tiny_model import tiny_tokenizer

# Each architecture takes those that its configuration class knows.
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    # Experts.
    **{"num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1},
    **{"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32, "n_group": 1, "topk_group": 1},
    "first_k_dense_replace": 1,
    # Compressed keys and values.
    **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    # Layers that keep a state.
    **{"state_size": 8, "ssm_state_size": 16, "time_step_rank": 4, "chunk_size": 16, "mamba_chunk_size": 16},
    **{"num_heads": 8, "n_groups": 1, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_dt_rank": 4},
    **{"mamba_n_groups": 1, "mamba_num_heads": 8, "mamba_head_dim": 16, "n_mamba_heads": 2, "mamba_d_ssm": 128},
    **{"mamba_ngroups": 1, "mamba_headdim": 16, "mamba_d_conv": 4, "lru_width": 64, "conv_L_cache": 3},
    **{"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 16, "linear_value_head_dim": 16},
}
_WINDOWS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 16}
_STATE_FIRST = {"layer_types": ["linear_attention", "full_attention"]}
_MAMBA = {"num_hidden_layers": 2, "intermediate_size": 128}
_IMAGES = {
    **{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16},
    **{
        "patch_size": 8,
        "depth": 1,
        "num_heads": 2,
        "out_hidden_size": 64,
        "vision_output_dim": 32,
        "projector_input_dim": 32,
    },
    **{"projector_output_dim": 64, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
}

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"tie_word_embeddings": True}),
    "gemma2": ("gemma2", {**_WINDOWS, "query_pre_attn_scalar": 16}),
    "gemma3 text": ("gemma3_text", {**_WINDOWS, "query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3", {"text_config": _WINDOWS, "vision_config": _IMAGES, "mm_tokens_per_image": 4}),
    "mistral, window": ("mistral", {"sliding_window": 16}),
    "phi3": ("phi3", {"sliding_window": 16}),
    "granite": ("granite", {"logits_scaling": 8.0}),
    "cohere": ("cohere", {}),
    "cohere2": ("cohere2", _WINDOWS),
    "mixtral": ("mixtral", {}),
    "qwen3_moe": ("qwen3_moe", {}),
    "gpt_oss": ("gpt_oss", _WINDOWS),
    "gpt2": ("gpt2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "falcon": ("falcon", {}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": 64}),
    "bloom": ("bloom", {}),
    "mpt": ("mpt", {"max_seq_len": 256}),
    "mamba": ("mamba", _MAMBA),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}),
    "starcoder2": ("starcoder2", {}),
    "olmo2": ("olmo2", {}),
    "stablelm": ("stablelm", {}),
}
"""One or two of each kind, for every test of bases."""
MORE_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "apertus": ("apertus", {}),
    "arcee": ("arcee", {}),
    "bamba": ("bamba", {"attn_layer_indices": [1]}),
    "bitnet": ("bitnet", {}),
    "codegen": ("codegen", {"rotary_dim": 8}),
    "cwm": ("cwm", _WINDOWS),
    "dbrx": (
        "dbrx",
        {
            "d_model": 64,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 256,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 96, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 64},
        },
    ),
    "deepseek_v2": ("deepseek_v2", {}),
    "deepseek_v3": ("deepseek_v3", {}),
    "diffllama": ("diffllama", {}),
    "dots1": ("dots1", {}),
    "ernie4_5": ("ernie4_5", {}),
    "ernie4_5_moe": ("ernie4_5_moe", {}),
    "exaone4": ("exaone4", _WINDOWS),
    "falcon_h1": ("falcon_h1", {"lm_head_multiplier": 0.5}),
    "falcon_mamba": ("falcon_mamba", _MAMBA),
    "gemma": ("gemma", {}),
    "gemma3n text": (
        "gemma3n_text",
        {
            **_WINDOWS,
            "num_kv_shared_layers": 0,
            "activation_sparsity_pattern": [0.0, 0.0],
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 8,
            "intermediate_size": [96, 96],
            "vocab_size_per_layer_input": 551,
        },
    ),
    "gemma4 text": (
        "gemma4_text",
        {
            **_WINDOWS,
            "num_kv_shared_layers": 0,
            "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": 551,
            "global_head_dim": 16,
        },
    ),
    "gemma4": (
        "gemma4",
        {
            "text_config": {
                **_WINDOWS,
                "num_kv_shared_layers": 0,
                "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 551,
                "global_head_dim": 16,
            },
            "vision_config": None,
        },
    ),
    "glm": ("glm", {}),
    "glm4": ("glm4", {}),
    "glm4_moe": ("glm4_moe", {}),
    "gpt_bigcode": ("gpt_bigcode", {}),
    "gpt_neo": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    ),
    "gptj": ("gptj", {"rotary_dim": 8}),
    "granitemoe": ("granitemoe", {}),
    "granitemoehybrid": ("granitemoehybrid", {**_STATE_FIRST, "shared_intermediate_size": 32}),
    "granitemoeshared": ("granitemoeshared", {"shared_intermediate_size": 32}),
    "helium": ("helium", {}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {}),
    "jamba": ("jamba", {"attn_layer_period": 2, "attn_layer_offset": 1}),
    "jetmoe": ("jetmoe", {"kv_channels": 16}),
    "kimi_linear": (
        "kimi_linear",
        {
            **_STATE_FIRST,
            "linear_num_heads": 4,
            "linear_head_dim": 16,
            "q_lora_rank": None,
            "num_experts_per_token": 2,
            "mlp_layer_types": ["dense", "sparse"],
        },
    ),
    "lfm2_moe": ("lfm2_moe", {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1}),
    "llama4 text": (
        "llama4_text",
        {"layer_types": ["chunked_attention", "full_attention"], "attention_chunk_size": 16, "intermediate_size_mlp": 96},
    ),
    "llama4": (
        "llama4",
        {
            "text_config": {
                "layer_types": ["chunked_attention", "full_attention"],
                "attention_chunk_size": 16,
                "intermediate_size_mlp": 96,
            },
            "vision_config": _IMAGES,
        },
    ),
    "longcat_flash": (
        "longcat_flash",
        {"num_layers": 2, "ffn_hidden_size": 96, "expert_ffn_hidden_size": 32, "moe_topk": 2, "zero_expert_num": 2},
    ),
    "mamba2": ("mamba2", {"expand": 2}),
    "minicpm3": ("minicpm3", {}),
    "minimax": ("minimax", {}),
    "ministral": ("ministral", _WINDOWS),
    "nemotron": ("nemotron", {}),
    "nemotron_h": ("nemotron_h", {"moe_shared_expert_intermediate_size": 32}),
    "olmo": ("olmo", {}),
    "olmo3": ("olmo3", _WINDOWS),
    "olmoe": ("olmoe", {}),
    "persimmon": ("persimmon", {}),
    "phi": ("phi", {}),
    "phimoe": ("phimoe", {}),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3_5 text": ("qwen3_5_text", _STATE_FIRST),
    "qwen3_5": ("qwen3_5", {"text_config": _STATE_FIRST, "vision_config": _IMAGES}),
    "qwen3_next": ("qwen3_next", _STATE_FIRST),
    "recurrent_gemma": ("recurrent_gemma", {"num_hidden_layers": 3}),
    "rwkv": ("rwkv", {"attention_hidden_size": 64, "context_length": 256}),
    "seed_oss": ("seed_oss", {}),
    "smollm3": ("smollm3", {}),
    "solar_open": ("solar_open", {}),
    "xglm": ("xglm", {"d_model": 64, "num_layers": 2, "attention_heads": 4, "ffn_dim": 96}),
    "xlstm": ("xlstm", {"num_heads": 4, "qk_dim_factor": 1.0}),
    "zamba2": (
        "zamba2",
        {
            "n_mamba_heads": 8,
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid"] * 2,
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
            "kv_channels": 16,
        },
    ),
}
"""Others, which `benchmarks/bases.py` runs too."""


def build_tiny_base(name: str, folder: Path, **changes: Any) -> Path:
    """Writes a model and the tiny ChatML tokenizer into ``folder``; the same bytes for the same name.

    Args:
        name: A key of :data:`CONFIGS` or :data:`MORE_CONFIGS`.
        folder: Receives the files.
        **changes: Settings of the text configuration to add or replace.
    """
    model_type, settings = {**CONFIGS, **MORE_CONFIGS}[name]
    tokenizer = tiny_tokenizer()
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    sizes = _known_sizes(AutoConfig.for_model(model_type).get_text_config())
    text = {"vocab_size": len(tokenizer), **ends, **changes}
    kind = AutoModelForCausalLM
    if "text_config" in settings:  # as such models are published, with the part that reads images
        kind = AutoModelForImageTextToText
        settings = {**settings, **ends, "text_config": {**sizes, **settings["text_config"], **text}}
    else:
        settings = {**sizes, **settings, **text}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind.from_config(AutoConfig.for_model(model_type, **settings)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _known_sizes(config: Any) -> dict[str, Any]:
    """Those of the tiny sizes that a configuration has under this name or another."""
    known = {*config.to_dict(), *config.attribute_map}
    sizes = {name: size for name, size in _SIZES.items() if name in known}
    # Compressed keys and values are those of every head.
    return {**sizes, "head_dim": 8, "num_key_value_heads": 4} if "kv_lora_rank" in known else sizes
