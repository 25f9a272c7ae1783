"""How often the preferred reply is the likelier one, under the trained model and under its base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tasks.training.examples import Pair
from tasks.training.trainer.batches import columns_of


def preference_rates(
    trainer: Any, pairs: Sequence[Pair], *, with_base: bool, alive: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """The share of pairs whose chosen reply is likelier than the rejected one, under the model and under its base.

    Args:
        trainer: A DPO or KTO trainer from :mod:`tasks.training.trainer.trainers`.
        pairs: Held-out pairs.
        with_base: Whether to measure the base model too, with the adapter off.
        alive: Called after every batch.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        rates = {"model": _preference_rate(trainer, model, pairs, alive)}
        if with_base:
            with model.disable_adapter():
                rates["base"] = _preference_rate(trainer, model, pairs, alive)
    model.train(was_training)
    return rates


def _preference_rate(trainer: Any, model: Any, pairs: Sequence[Pair], alive: Callable[[], None]) -> float:
    size = trainer.args.per_device_eval_batch_size
    collate = DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id)
    ordered = sorted(pairs, key=len, reverse=True)
    preferred = 0
    for start in range(0, len(ordered), size):
        rows = [columns_of(pair) for pair in ordered[start : start + size]]
        batch = {name: value.to(trainer.args.device) for name, value in collate(rows).items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        scores = model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(dim=1)
        chosen, rejected = scores.chunk(2)
        preferred += int((chosen > rejected).sum())
        alive()
    return preferred / len(ordered)
