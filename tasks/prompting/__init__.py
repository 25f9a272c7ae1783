"""Prompting baselines: whether a prompt, examples in it or retrieved context make training unnecessary."""

from tasks.prompting.config import FitConfig
from tasks.prompting.task import measure_prompting_baselines, prompt_arms

__all__ = ["FitConfig", "measure_prompting_baselines", "prompt_arms"]
