"""Promotion gate: whether the evidence says that the candidate is better than the base model and the champion."""

from tasks.promotion.config import GuardConfig, PromotionConfig, SafetyGuardConfig
from tasks.promotion.task import decide_promotion

__all__ = ["GuardConfig", "PromotionConfig", "SafetyGuardConfig", "decide_promotion"]
