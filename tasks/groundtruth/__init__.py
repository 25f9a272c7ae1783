"""Ground truth: what share of planted faults each stage found, where a data set comes with a list of them."""

from tasks.groundtruth.config import TruthConfig
from tasks.groundtruth.task import measure_against_truth

__all__ = ["TruthConfig", "measure_against_truth"]
