"""How likely the two replies of held-out pairs are, and what that says about preference.

A sum of log-probabilities falls with every token, so a comparison of sums mostly finds the shorter reply. These do not:

- the **preference rate** compares log-probabilities per token, the measure by which a model generates (SimPO,
  arXiv 2405.14734, section 2.2). It needs no reference, so base, start and end are compared on the same pairs.
- the **implicit reward** of a reply is beta times the log of its probability under the trained model over that under the
  reference, the adapter that training continues (DPO, arXiv 2305.18290, equation 5). Its own length cancels. Losses that
  divide by the length (``ipo``, ``sigmoid_norm``) optimise this reward per token, and are measured by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from tasks.contracts.measurement import Measurement
from tasks.stats.bootstrap import Interval, Values
from tasks.stats.estimates import mean_difference, mean_score
from tasks.training.config import DpoConfig, KtoConfig
from tasks.training.examples import Pair
from tasks.training.trainer.batches import columns_of

_PER_TOKEN_LOSSES = frozenset({"ipo", "sigmoid_norm"})
_INTERVAL = {"confidence": 0.95, "num_resamples": 1_000, "seed": 0}


class PairLikelihood(NamedTuple):
    """The summed log-probabilities of a pair's replies in nats, and their numbers of tokens."""

    chosen: float
    rejected: float
    num_chosen: int
    num_rejected: int


def pair_likelihoods(
    trainer: Any, pairs: Sequence[Pair], *, with_base: bool, alive: Callable[[], None] = lambda: None
) -> dict[str, tuple[PairLikelihood, ...]]:
    """The likelihoods of the pairs in their order, under ``model`` and, with the adapter off, under ``base``.

    Args:
        trainer: A DPO or KTO trainer from :mod:`tasks.training.trainer.trainers`.
        pairs: Held-out pairs.
        with_base: Whether to measure the base model too.
        alive: Called after every batch.
    """
    model = trainer.model
    was_training = model.training
    model.eval()
    with torch.no_grad():
        likelihoods = {"model": _likelihoods(trainer, model, pairs, alive)}
        if with_base:
            with model.disable_adapter():
                likelihoods["base"] = _likelihoods(trainer, model, pairs, alive)
    model.train(was_training)
    return likelihoods


def _likelihoods(trainer: Any, model: Any, pairs: Sequence[Pair], alive: Callable[[], None]) -> tuple[PairLikelihood, ...]:
    size = trainer.args.per_device_eval_batch_size
    collate = DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id)
    order = sorted(range(len(pairs)), key=lambda index: -len(pairs[index]))
    found: dict[int, PairLikelihood] = {}
    for start in range(0, len(order), size):
        chosen_rows = order[start : start + size]
        rows = [columns_of(pairs[index]) for index in chosen_rows]
        batch = {name: value.to(trainer.args.device) for name, value in collate(rows).items()}
        labels = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, -100)
        scores = model(**batch, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(dim=1)
        lengths = (labels[:, 1:] != -100).sum(dim=1)
        sides = (*scores.double().cpu().chunk(2), *lengths.cpu().chunk(2))
        for index, *figures in zip(chosen_rows, *(side.tolist() for side in sides), strict=True):
            found[index] = PairLikelihood(*figures)
        alive()
    return tuple(found[index] for index in range(len(pairs)))


def preference_measurements(
    before: Mapping[str, tuple[PairLikelihood, ...]],
    after: Mapping[str, tuple[PairLikelihood, ...]],
    config: DpoConfig | KtoConfig,
) -> tuple[Measurement, ...]:
    """Preference rates of base, start and end with the gain of training, and the implicit reward of the chosen replies.

    Args:
        before: The likelihoods of the same pairs before the first step; ``model`` is the reference then.
        after: After the last step.
        config: The method's settings.
    """
    rate = "share of held-out pairs whose chosen reply has the higher log-probability per token; a tie is half"
    rates = {"base": _preferred(before.get("base", ())), "before": _preferred(before["model"])}
    rates["after"] = _preferred(after["model"])
    figures = [
        _measured(f"preference_rate_{when}", _mean(values), values, rate) for when, values in rates.items() if len(values)
    ]
    gain = mean_difference(rates["after"], rates["before"], **_INTERVAL)  # type: ignore[arg-type]
    figures.append(_measured("preference_rate_gain", gain, rates["after"], "after minus before on the same pairs"))
    rewards = _reward_margins(before["model"], after["model"], config)
    per_token = " per token" if _is_per_token(config) else ""
    reward = f"implicit reward{per_token}, beta times the log-ratio to the adapter that training continued"
    wins = _wins(rewards)
    figures.append(
        _measured(
            "reward_accuracy_after", _mean(wins), wins, f"share of held-out pairs whose chosen reply has the higher {reward}"
        )
    )
    figures.append(_measured("reward_margin_after", _mean(rewards), rewards, f"chosen minus rejected reply in the {reward}"))
    return tuple(figures)


def _preferred(pairs: Sequence[PairLikelihood]) -> Values:
    """1 where the chosen reply is the likelier one per token, 0 where the rejected one is, a half for a tie."""
    return _wins(
        np.array([p.chosen / max(1, p.num_chosen) - p.rejected / max(1, p.num_rejected) for p in pairs], dtype=np.float64)
    )


def _wins(margins: Values) -> Values:
    wins: Values = (np.sign(margins) + 1) / 2
    return wins


def _reward_margins(
    reference: Sequence[PairLikelihood], model: Sequence[PairLikelihood], config: DpoConfig | KtoConfig
) -> Values:
    per_token = _is_per_token(config)

    def margin(ref: PairLikelihood, now: PairLikelihood) -> float:
        chosen, rejected = now.chosen - ref.chosen, now.rejected - ref.rejected
        if per_token:
            chosen, rejected = chosen / max(1, now.num_chosen), rejected / max(1, now.num_rejected)
        return chosen - rejected

    return config.beta * np.array([margin(*each) for each in zip(reference, model, strict=True)], dtype=np.float64)


def _is_per_token(config: DpoConfig | KtoConfig) -> bool:
    """Whether every loss that compares the replies divides their rewards by their lengths."""
    losses = {config.loss_type} if isinstance(config.loss_type, str) else set(config.loss_type)
    return bool(losses - {"sft"}) and losses - {"sft"} <= _PER_TOKEN_LOSSES


def _mean(values: Values) -> Interval:
    return mean_score(values, **_INTERVAL)  # type: ignore[arg-type]


def _measured(name: str, interval: Interval, values: Values, note: str) -> Measurement:
    return Measurement(
        name=name, value=interval.estimate, low=interval.low, high=interval.high, num_samples=len(values), note=note
    )
