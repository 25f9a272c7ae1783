"""Fit verdict: whether a prompt, a few examples or retrieved context would do, before training is paid for."""

from tasks.fit.config import FitConfig
from tasks.fit.task import measure_prompting_baselines, prompt_arms

__all__ = ["FitConfig", "measure_prompting_baselines", "prompt_arms"]
