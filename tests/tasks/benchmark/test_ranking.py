"""Models are ranked by paired scores, and a lead comes with its interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.ranking import comparable_metric, rank
from tasks.core.errors import InputError

CONFIG = BenchmarkConfig(num_resamples=200)


def frame(metric: str, values: list[float], tokens: float = 10.0) -> pd.DataFrame:
    return pd.DataFrame({metric: values, "tokens_out": tokens}, index=[f"r{number}" for number in range(len(values))])


@pytest.mark.parametrize(("metric", "order"), [("chrf", (1, 2, 0)), ("length_error", (0, 2, 1))])
def test_the_better_one_is_first_in_the_metrics_direction(metric: str, order: tuple[int, ...]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.01, 40)
    ranking = rank([frame(metric, list(mean + noise)) for mean in (0.1, 0.5, 0.3)], metric, CONFIG)
    assert ranking.order == order
    assert ranking.lead.value == pytest.approx(0.2 if metric == "chrf" else -0.2)


def test_equal_models_rank_by_tokens_and_then_by_place() -> None:
    scores = [0.2, 0.4, 0.6]
    frames = [frame("chrf", scores, 30), frame("chrf", scores, 10), frame("chrf", scores, 10)]
    ranking = rank(frames, "chrf", CONFIG)
    assert ranking.order == (1, 2, 0)
    assert (ranking.lead.value, ranking.lead.low, ranking.lead.high) == (0.0, 0.0, 0.0)


def test_only_examples_that_all_were_measured_on_count() -> None:
    other = frame("chrf", [0.5, 0.5, np.nan])
    assert rank([frame("chrf", [0.1, 0.2, 9.0]), other], "chrf", CONFIG).order == (1, 0)
    with pytest.raises(InputError, match="0 on which every base model has bleu"):
        rank([other, other], "bleu", CONFIG)


def test_a_metric_per_token_is_replaced() -> None:
    assert [comparable_metric(name) for name in ("nll", "rouge_l", "label_accuracy")] == [
        "chrf",
        "rouge_l",
        "label_accuracy",
    ]
