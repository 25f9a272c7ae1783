"""The memory that training takes, in bytes by part. Pure; no torch.

Memory of one device::

    weights        base parameters in the compute precision (or 4-bit); where the model is sharded, this device's part
    gathered       the parts of a sharded model that are whole at one time
    adapter        trainable parameters, float32
    gradients      one float32 each
    optimizer      AdamW: two float32 each
    activations    what the backward pass needs, for one micro-batch
    head           logits of one tile of the vocabulary projection
    runtime        Python, libraries, allocator, CUDA context
"""

from __future__ import annotations

from tasks.contracts.training import TrainingPlan
from tasks.modeling.shape import ModelShape

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# NF4 with double quantisation: 4 bits and 0.127 bits of constants a weight (QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = 0.516
# Measured: this process with torch, transformers, peft and trl imported.
_CPU_RUNTIME_BYTES = 950_000_000
# The trainer's heap is never trimmed (``launch.process``), and batches differ in shape, so that the memory one leaves free
# does not fit the next: measured 1.1 times the activations after one step, 1.4 to 1.8 times after some.
_CPU_HEAP_FACTOR = 1.5
# Measured on an H100: workspaces of cuBLAS and gaps between tensors. PyTorch does not count the CUDA context, which lies
# within the share of memory that no plan uses.
_GPU_RUNTIME_BYTES = 400_000_000
# TRL's loss head scores the learned positions against this much of the vocabulary at a time.
_GPU_HEAD_TILE = 32_768


def estimate_memory(
    shape: ModelShape,
    *,
    num_trainable: int,
    tokens: int,
    precision: str,
    quantization: str,
    gradient_checkpointing: bool,
    device: str,
    liger_kernel: bool = False,
    num_shards: int = 1,
) -> dict[str, int]:
    """Bytes by part for a micro-batch of ``tokens`` padded tokens, of base weights in ``num_shards`` parts."""
    size = BYTES[precision]
    quantized = 0
    if quantization == "nf4":  # bitsandbytes leaves embeddings and experts in one tensor as they are
        quantized = shape.num_parameters - shape.num_embeddings - shape.num_expert_parameters
    # Each layer keeps for the backward pass (Llama-like, fused attention): inputs of the two norms and of the four groups
    # of projections, queries, keys and values before and after rotation, attention output, gate, activation, up and their
    # product.
    queries = shape.num_attention_heads * shape.head_dim
    keys = shape.num_key_value_heads * shape.head_dim
    if liger_kernel:  # rotates in place, and recomputes norms and activations
        per_layer = (3 * shape.hidden_size + 2 * queries + 2 * keys + 3 * shape.intermediate_size) * size
    else:
        per_layer = (6 * shape.hidden_size + 3 * queries + 4 * keys + 5 * shape.intermediate_size) * size
    boundary = shape.hidden_size * size
    if gradient_checkpointing:
        activations = tokens * (shape.num_layers * boundary + per_layer)
    else:
        activations = tokens * shape.num_layers * (per_layer + boundary)
    if device == "cpu":
        activations = int(activations * _CPU_HEAP_FACTOR)
    if device == "cuda":
        head = tokens * min(shape.vocab_size, _GPU_HEAD_TILE) * 4
    else:
        head = min(tokens, 256) * shape.vocab_size * 4 * 2
    return {
        "weights": int(((shape.num_parameters - quantized) * size + quantized * NF4_BYTES) / num_shards),
        # The current layer, the next one that is fetched meanwhile, and the embeddings of input and output: transformers
        # 5.23 gathers tied ones twice, once under each name.
        "gathered": (
            2 * (shape.num_layer_parameters + shape.vocab_size * shape.hidden_size) * size if num_shards > 1 else 0
        ),
        "adapter": num_trainable * 4 if num_trainable != shape.num_parameters else 0,
        "gradients": num_trainable * 4,
        "optimizer": num_trainable * 8,
        "activations": activations,
        "head": head,
        "runtime": _GPU_RUNTIME_BYTES if device == "cuda" else _CPU_RUNTIME_BYTES,
    }


def checkpoint_bytes(plan: TrainingPlan) -> int:
    """The most disk space that training needs: three checkpoints (one being written) and two sets of weights."""
    weights = plan.num_trainable_parameters * 4
    return 3 * 3 * weights + 2 * weights + 100_000_000
