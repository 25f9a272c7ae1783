"""Ground truth: what share of planted faults each stage found, where a data set comes with a list of them."""

from tasks.groundtruth.config import GroundTruthConfig
from tasks.groundtruth.task import measure_against_truth

__all__ = ["GroundTruthConfig", "measure_against_truth"]
