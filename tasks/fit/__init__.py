"""Fit verdict: whether a prompt, a few examples or retrieved context would do, before training is paid for."""

from tasks.fit.config import FitConfig
from tasks.fit.task import judge_fit, prompt_arms

__all__ = ["FitConfig", "judge_fit", "prompt_arms"]
