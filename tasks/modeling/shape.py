"""The shape of a base model: the numbers of its ``config.json`` that decide memory, time and length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder; ``max_positions`` is its context length, None where the configuration states none."""

    num_parameters: int
    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    model_type: str = "llama"
    tied_embeddings: bool = True
    max_positions: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any], num_parameters: int) -> ModelShape:
        """The shape that a model's configuration states."""
        hidden = int(config["hidden_size"])
        heads = int(config["num_attention_heads"])
        return cls(
            num_parameters=num_parameters,
            num_layers=int(config["num_hidden_layers"]),
            hidden_size=hidden,
            intermediate_size=int(config.get("intermediate_size") or 4 * hidden),
            vocab_size=int(config["vocab_size"]),
            num_attention_heads=heads,
            num_key_value_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or hidden // heads),
            model_type=str(config.get("model_type", "")),
            tied_embeddings=bool(config.get("tie_word_embeddings", True)),
            max_positions=config.get("max_position_embeddings"),
        )

    @property
    def num_embeddings(self) -> int:
        """Parameters of the embeddings, including those of the output when it has its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """Inputs and outputs of one layer's projections, by module name."""
        queries = self.num_attention_heads * self.head_dim
        keys = self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (self.hidden_size, queries),
            "k_proj": (self.hidden_size, keys),
            "v_proj": (self.hidden_size, keys),
            "o_proj": (queries, self.hidden_size),
            "gate_proj": (self.hidden_size, self.intermediate_size),
            "up_proj": (self.hidden_size, self.intermediate_size),
            "down_proj": (self.intermediate_size, self.hidden_size),
        }

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one layer: its projections and two norms."""
        return sum(inputs * outputs for inputs, outputs in self.linear_shapes.values()) + 2 * self.hidden_size


def read_shape(folder: Path, num_parameters: int) -> ModelShape:
    """The shape of the model in a folder of Hugging Face format."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelShape.from_config(config, num_parameters)
