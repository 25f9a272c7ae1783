"""Benchmark: a model's scores on the frozen examples, example by example, with intervals."""

from tasks.benchmark.config import BenchmarkConfig, JudgeConfig, LatencyConfig, LmEvalConfig, TokenPrices
from tasks.benchmark.task import judge_replies, rank_models, score_model, time_in_turns

__all__ = [
    "BenchmarkConfig",
    "JudgeConfig",
    "LatencyConfig",
    "LmEvalConfig",
    "TokenPrices",
    "judge_replies",
    "rank_models",
    "score_model",
    "time_in_turns",
]
