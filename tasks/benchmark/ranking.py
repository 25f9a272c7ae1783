"""Which of several models answers the same examples best, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tasks.benchmark.config import BenchmarkConfig
from tasks.contracts.evaluation import ModelRanking
from tasks.contracts.measurement import Measurement
from tasks.core.errors import InputError
from tasks.measures.metrics import METRICS
from tasks.stats.estimates import mean_difference


def comparable_metric(metric: str) -> str:
    """The metric, or ``chrf`` in place of one per token, which does not compare models with different tokenizers."""
    return "chrf" if METRICS[metric].unit == "nats per token" else metric


def rank(examples: Sequence[pd.DataFrame], metric: str, config: BenchmarkConfig) -> ModelRanking:
    """The models by their mean, better first; of equal ones the one that needs fewer tokens, then the earlier one.

    Args:
        examples: The scores of each model, at least two, by example id.
        metric: What to rank by.
        config: Settings of the interval.

    Raises:
        InputError: The metric was not measured on two examples of every model.
    """
    columns = [frame[metric] if metric in frame else pd.Series(dtype=float) for frame in examples]
    scores = pd.concat(columns, axis=1, join="inner", keys=range(len(examples))).astype(float).dropna()
    if len(scores) < 2:
        raise InputError(
            "validation rows",
            f"{len(scores)} on which every base model has {metric}",
            "at least 2",
            "Raise prepare.splitting.validation_share, or choose a promotion.primary_metric that these rows have.",
        )
    sign = 1 if METRICS[metric].higher_is_better else -1
    tokens = [float(frame["tokens_out"].mean()) if "tokens_out" in frame else 0.0 for frame in examples]
    means = scores.to_numpy().mean(axis=0)
    order = sorted(range(len(examples)), key=lambda number: (-sign * float(means[number]), tokens[number], number))
    first, second = (scores[number].to_numpy() for number in order[:2])
    gain = mean_difference(first, second, confidence=config.confidence, num_resamples=config.num_resamples, seed=config.seed)
    return ModelRanking(
        metric=metric,
        order=tuple(order),
        lead=Measurement(name=metric, value=gain.estimate, low=gain.low, high=gain.high, num_samples=len(scores)),
    )
