"""A model with random weights in the shape of a known one, for benchmarks where only speed and memory count.

    python tests/support/random_model.py llama-8b FOLDER

Speed and memory do not depend on the weights' values, so nothing has to be downloaded. The tokenizer knows as many words as
the model has tokens, `w0`, `w1` and so on, splits at spaces and has a chat template; any other word is `w0`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

_LLAMA_3 = {"vocab_size": 128_256, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192}
SHAPES: dict[str, dict[str, object]] = {
    # Llama 3 8B and Llama 3.2 1B, by their model cards' configurations; and one to try a benchmark out.
    "llama-8b": {**_LLAMA_3, "hidden_size": 4096, "intermediate_size": 14_336, "num_hidden_layers": 32},
    "tiny": {**_LLAMA_3, "vocab_size": 1000, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2},
    "llama-1b": {
        **_LLAMA_3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "tie_word_embeddings": True,
    },
    # Small enough for a CPU: four of Qwen3 0.6B's layers, and a mixture of eight experts of which two are chosen.
    "qwen3-small": {
        **{"model_type": "qwen3", "vocab_size": 32_000, "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128},
        **{"num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 4, "tie_word_embeddings": True},
    },
    "moe-small": {
        **{
            "model_type": "qwen3_moe",
            "vocab_size": 16_000,
            "hidden_size": 512,
            "moe_intermediate_size": 384,
            "head_dim": 64,
        },
        **{"num_attention_heads": 8, "num_key_value_heads": 4, "num_hidden_layers": 4, "num_experts": 8},
        **{"num_experts_per_tok": 2, "intermediate_size": 1536, "tie_word_embeddings": True},
    },
}
_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ' ' + message['content'] + ' w1 ' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant ' }}{% endif %}"
)


def make_random_model(shape: str, folder: Path) -> Path:
    """The folder with a model of this shape in bfloat16; what is there already is kept."""
    if not (folder / "tokenizer.json").exists():
        settings = {"model_type": "llama", **SHAPES[shape]}
        with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**settings), dtype=torch.bfloat16)
        model.save_pretrained(folder)
        words = {f"w{number}": number for number in range(int(str(settings["vocab_size"])))}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="w1", pad_token="w1", unk_token="w0")
        saved.chat_template = _TEMPLATE
        saved.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    print(make_random_model(options.shape, options.folder))
