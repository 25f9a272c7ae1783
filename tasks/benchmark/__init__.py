"""Benchmark: what a model scores on the frozen examples, example by example, with intervals."""

from tasks.benchmark.config import BenchmarkConfig
from tasks.benchmark.task import score_model

__all__ = ["BenchmarkConfig", "score_model"]
