"""A faster loss head for CPUs: it scores the learned positions alone.

TRL's fused head does so on CUDA only. On a CPU it projects every position, including prompts and padding, onto the whole
vocabulary, which is a fifth of all work for a 135M model. This head projects the learned positions, tile by tile into one
buffer, and computes their gradient in the same pass, so that no logits are kept or recomputed. It requires frozen output
embeddings, and logits that are their plain product with the hidden states. Elsewhere TRL's head stays.
"""

from __future__ import annotations

import logging
import types
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from trl.trainer.utils import FusedCausalLMOutput

from tasks.core.errors import ModelNotFoundError
from tasks.modeling.profile import SETTING, has_plain_logits
from tasks.training.trainer.sharding import whole

logger = logging.getLogger(__name__)

_TOLERANCE = 1e-2
_NUM_CHECKED_TOKENS = 9
# Rows of logits at a time: large enough for the matrix product, small enough (50 MB for a 49k vocabulary) for the caches.
_TILE = 256


class _LabelLogProbs(torch.autograd.Function):  # type: ignore[misc]
    """Log-probabilities of labels; the forward pass also computes the gradient with respect to the hidden states."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 log-probabilities of shape ``(positions,)`` for hidden states ``(positions, hidden_size)``."""
        result = torch.empty(len(labels), dtype=torch.float32)
        gradient = torch.empty_like(hidden) if hidden.requires_grad else None
        buffer = hidden.new_empty(min(_TILE, max(1, len(labels))), weight.shape[0])
        for start in range(0, len(labels), _TILE):
            tile = slice(start, start + _TILE)
            rows, targets = hidden[tile], labels[tile, None]
            logits = torch.mm(rows, weight.t(), out=buffer[: len(rows)]).float()
            total = logits.logsumexp(dim=1, keepdim=True)
            result[tile] = (logits.gather(1, targets) - total)[:, 0]
            if gradient is not None:
                # d log p(label) / d hidden = W[label] - sum over v of p(v) W[v]
                probabilities = logits.sub_(total).exp_().to(weight.dtype)
                torch.mm(probabilities, weight, out=gradient[tile])
                gradient[tile].neg_().add_(weight[targets[:, 0]])
        ctx.gradient = gradient
        return result

    @staticmethod
    def backward(ctx: Any, *outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        """Scales the gradients of the forward pass."""
        return ctx.gradient.mul_(outputs[0][:, None].to(ctx.gradient.dtype)), None, None


def choose_head(model: Any, *, frozen: bool) -> bool:
    """Gives a TRL trainer's base model this head where it computes what the model's own logits say; True where it does.

    Args:
        model: The base model, with TRL's head.
        frozen: Whether the output embeddings are.

    Raises:
        ModelNotFoundError: TRL's head does not compute it either.
    """
    own, plain_forward = _own_loss(model), model.forward
    if frozen and has_plain_logits(model):
        score_labels_only(model)
        if _agree(_fused_loss(model), own):
            return True
        model.forward = plain_forward
    fused = _fused_loss(model)
    if not _agree(fused, own):
        raise ModelNotFoundError(
            SETTING,
            f"a loss of {fused:.3f} in training where the model's own logits give {own:.3f}",
            "the same within 1 %",
            "Choose another base model; this one would learn something else than it is scored by.",
        )
    logger.info("TRL's own loss head is used for %s", type(model).__name__)
    return False


def _checked_tokens(model: Any) -> torch.Tensor:
    return torch.arange(1, 1 + _NUM_CHECKED_TOKENS, device=model.device)[None] % model.config.get_text_config().vocab_size


def _evaluated(model: Any, ids: torch.Tensor, **options: Any) -> Any:
    """The model's output without dropout and gradients; it goes on in the mode that it was in."""
    was_training = model.training
    with torch.no_grad():
        output = model.eval()(input_ids=ids, use_cache=False, **options)
    model.train(was_training)
    return output


def _own_loss(model: Any) -> float:
    ids = _checked_tokens(model)
    return float(cross_entropy(_evaluated(model, ids).logits[0, :-1].float(), ids[0, 1:]))


def _fused_loss(model: Any) -> float:
    ids = _checked_tokens(model)
    return -float(_evaluated(model, ids, labels=ids, fused_lm_head=True).log_probs.float().mean())


def _agree(loss: float, own: float) -> bool:
    return abs(loss - own) <= _TOLERANCE * max(1.0, own)


def score_labels_only(model: Any) -> None:
    """Replaces the fused loss head of a TRL trainer's base model by this one, in place; other calls are unchanged.

    The outputs that TRL only logs (entropy, token accuracy) are zeros.
    """
    plain_forward = model.forward

    def forward(
        self: Any, *args: Any, fused_lm_head: bool = False, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> Any:
        # TRL's head adds what balances the load of experts.
        if not fused_lm_head or labels is None or kwargs.get("output_router_logits"):
            return plain_forward(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        targets = labels[:, 1:]
        mask = targets != -100
        weight = whole(self.get_output_embeddings().weight)
        scored = _LabelLogProbs.apply(hidden[mask].to(weight.dtype), weight, targets[mask])
        zeros = torch.zeros(mask.shape)
        log_probs = zeros.masked_scatter(mask, scored)
        return FusedCausalLMOutput(
            loss=-log_probs.sum() / mask.sum().clamp(min=1),
            log_probs=log_probs,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=torch.zeros_like(mask),
            label_mask=mask,
        )

    model.forward = types.MethodType(forward, model)
