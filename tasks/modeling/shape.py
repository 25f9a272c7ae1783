"""The shape of a base model: the numbers that decide memory, time and length."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a decoder.

    Attributes:
        num_parameters: All of them, tied ones once.
        intermediate_size: Inner width that one token passes through; of a mixture of experts, the chosen experts' together.
        model_type: transformers' name of the architecture.
        max_positions: The context length, None where the configuration states none.
        num_expert_parameters: Parameters of experts that one tensor holds together; 4-bit weights leave them as they are.
        share_of_experts: The share of the experts that one token passes through.
    """

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
    num_expert_parameters: int = 0
    share_of_experts: float = 1.0

    @property
    def num_embeddings(self) -> int:
        """Parameters of the embeddings, including those of the output when it has its own."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def num_layer_parameters(self) -> int:
        """Parameters of one layer, on average; the last norm belongs to none."""
        return (self.num_parameters - self.num_embeddings - self.hidden_size) // self.num_layers

    @property
    def num_active_parameters(self) -> int:
        """The parameters that one token passes through."""
        return self.num_parameters - round(self.num_expert_parameters * (1 - self.share_of_experts))
