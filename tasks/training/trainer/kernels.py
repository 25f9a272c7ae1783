"""Faster layers with the same results: packed attention, fused layers, fused adapters.

The plan turns each on where it measured faster (docs/results.md): on an H100, LoRA of an 8B model went from 28 % of the
card's peak to 48 %. Fused adapters work everywhere; packed attention requires an NVIDIA GPU from Ampere on, Liger's kernels
Triton and a C compiler.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from torch.nn.attention import varlen
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.liger import apply_liger_kernel

from tasks.core.errors import ConfigError
from tasks.training.plan.planning import PACKED_ATTENTION

_LEAK = 1e-2

# TRL's own loss head projects the learned positions only; Liger's projects all.
_LIGER_KERNELS = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}


# -------------------------------------------------------------------------------------------------------- packed attention


def register_packed_attention() -> None:
    """Registers PyTorch's attention over packed sequences with transformers, under its name in plans."""
    AttentionInterface.register(PACKED_ATTENTION, _packed_attention)
    AttentionMaskInterface.register(PACKED_ATTENTION, lambda *args, **kwargs: None)


def _packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: torch.Tensor | None = None,
    cu_seq_lens_k: torch.Tensor | None = None,
    max_length_q: int | None = None,
    max_length_k: int | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each of several sequences that are concatenated in one row.

    Args:
        module: The attention layer.
        query: Shape ``(1, heads, tokens, head_dim)``.
        key: Shape ``(1, key_value_heads, tokens, head_dim)``; a divisor of the query's heads.
        value: As ``key``.
        attention_mask: Always None; the lengths say where sequences begin.
        scaling: Of the scores before softmax; None is ``head_dim ** -0.5``.
        dropout: Must be 0, as in every model that is trained today.
        cu_seq_lens_q: Where sequences begin and end, int32, shape ``(sequences + 1,)``.
        cu_seq_lens_k: The same.
        max_length_q: The longest sequence.
        max_length_k: The same.
        **kwargs: Options of other implementations; a sliding window is refused.

    Returns:
        Shape ``(1, tokens, heads, head_dim)``; no attention weights.
    """
    if cu_seq_lens_q is None or cu_seq_lens_k is None or max_length_q is None or max_length_k is None:
        raise ValueError(f"{PACKED_ATTENTION} attention needs cu_seq_lens: where sequences begin (padding-free batches)")
    if dropout or kwargs.get("sliding_window") is not None:
        raise ValueError(f"{PACKED_ATTENTION} attention has neither dropout nor a window")
    query, key, value = (states.transpose(1, 2)[0] for states in (query, key, value))
    output = varlen.varlen_attn(
        query,
        key,
        value,
        cu_seq_lens_q,
        cu_seq_lens_k,
        max_length_q,
        max_length_k,
        scale=scaling,
        window_size=(-1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(output, torch.Tensor)
    return output[None], None


def check_separate_rows(model: Any) -> None:
    """Refuses a model that is trained on packed rows with a mask and whose rows see each other in one sequence.

    Rows begin where positions begin again. Some architectures take their positions and not their mask from that.

    Args:
        model: A causal language model without packed attention.

    Raises:
        ConfigError: What the first of two rows says changes the logits of the second.
    """
    rows = torch.arange(1, 17, device=model.device)[None] % model.config.get_text_config().vocab_size
    other = rows.clone()
    other[:, :8] = rows[:, 8:]
    positions = torch.arange(8, device=model.device).repeat(2)[None]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        first, second = (
            model(input_ids=ids, position_ids=positions, use_cache=False).logits[:, 8:].float() for ids in (rows, other)
        )
    model.train(was_training)
    if float((first - second).abs().max()) > _LEAK * max(1e-3, float(first.abs().max())):
        raise ConfigError(
            "training.sft.packing",
            f"true for a {model.config.model_type} model, whose rows see each other in a packed sequence",
            "rows one by one",
            "Set `packing` to auto or false.",
        )


# ------------------------------------------------------------------------------------------------------------ fused layers


def fuse_layers(model: Any) -> None:
    """Gives a model Liger's kernels for its norms, rotary embedding and gated layers, in place."""
    apply_liger_kernel(model, _LIGER_KERNELS)


class _AdaptedProjection(torch.autograd.Function):  # type: ignore[misc]
    """``x W' + bias + scaling * (x A') B'`` for frozen ``W``, without a separate pass over memory for the adapter.

    PEFT casts the input to the adapter's float32 and back, and scales and adds in separate passes. Here the adapter's
    products accumulate into the projection's result and into its gradient.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight_of: Callable[[], torch.Tensor],
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        """Outputs of shape ``(..., outputs)`` in ``dtype`` for ``x`` of shape ``(..., inputs)``."""
        rows = x.reshape(-1, x.shape[-1]).to(dtype)
        ctx.weight_of, ctx.scaling, ctx.shape, ctx.dtypes = weight_of, scaling, x.shape, (x.dtype, a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
        weight = weight_of().to(dtype)
        # The output itself is no view: a model may change it in place (Gemma 3n), which autograd forbids of a view.
        output = rows.new_empty(*x.shape[:-1], len(weight))
        flat = output.view(-1, len(weight))
        torch.mm(rows, weight.t(), out=flat) if bias is None else torch.addmm(bias.to(dtype), rows, weight.t(), out=flat)
        reduced = torch.mm(rows, a.t())
        flat.addmm_(reduced, b.t(), alpha=scaling)
        ctx.save_for_backward(rows, a, b, reduced)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of ``x``, ``A`` and ``B``."""
        rows, a, b, reduced = ctx.saved_tensors
        of_x, of_a, of_b = ctx.dtypes
        gradient = gradients[0].reshape(-1, gradients[0].shape[-1])
        reduced_gradient = torch.mm(gradient, b).mul_(ctx.scaling)
        x_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = torch.mm(gradient, ctx.weight_of().to(gradient.dtype)).addmm_(reduced_gradient, a)
            x_gradient = x_gradient.view(ctx.shape).to(of_x)
        a_gradient = torch.mm(reduced_gradient.t(), rows).to(of_a)
        b_gradient = torch.mm(gradient.t(), reduced).to(of_b).mul_(ctx.scaling)
        return x_gradient, None, None, a_gradient, b_gradient, None, None


def fuse_adapters(model: Any) -> None:
    """Makes every plain LoRA layer of a PEFT model compute its projection and its adapter together, in place.

    PEFT itself computes everything else: dropout, DoRA, several adapters, merged or disabled ones.
    """
    for layer in model.modules():
        if isinstance(layer, LoraLayer) and _weight_of(layer.get_base_layer()) is not None:
            layer.forward = types.MethodType(_adapted_forward, layer)


def _adapted_forward(layer: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    if args or kwargs or not _is_plain(layer):
        result: torch.Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return result
    base, name = layer.get_base_layer(), layer.active_adapters[0]
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):
        output: torch.Tensor = _AdaptedProjection.apply(
            x, _weight_of(base), base.bias, layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name], dtype
        )
    return output


def _is_plain(layer: Any) -> bool:
    """Whether a layer adds one ordinary adapter, without dropout, to a frozen projection."""
    active = layer.active_adapters
    if layer.disable_adapters or layer.merged or len(active) != 1 or active[0] not in layer.lora_A:
        return False
    dropout = layer.lora_dropout[active[0]]
    return (
        active[0] not in layer.lora_variant
        and layer.lora_B[active[0]].bias is None
        and (isinstance(dropout, torch.nn.Identity) or not layer.training)
        and not layer.get_base_layer().weight.requires_grad
    )


def _weight_of(base: Any) -> Callable[[], torch.Tensor] | None:
    """A function that returns a projection's weight, shape ``(outputs, inputs)``; None for other kinds of layers."""
    if type(base) is torch.nn.Linear:
        return lambda: base.weight
    # bitsandbytes lays 4-bit weights out differently on a CPU.
    if isinstance(base, torch.nn.Linear) and getattr(base.weight, "quant_state", None) is not None and base.weight.is_cuda:
        from bitsandbytes.functional import dequantize_4bit

        return lambda: dequantize_4bit(base.weight.data, base.weight.quant_state)
    return None
