"""Benchmark: what a model scores on the frozen examples, example by example, with intervals."""

from tasks.benchmark.config import BenchmarkConfig, JudgeConfig, LmEvalConfig
from tasks.benchmark.task import judge_replies, score_model

__all__ = ["BenchmarkConfig", "JudgeConfig", "LmEvalConfig", "judge_replies", "score_model"]
