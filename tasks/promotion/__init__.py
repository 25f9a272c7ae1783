"""Promotion gate: whether the candidate is proven to be better than the base model and the champion."""

from tasks.promotion.config import GuardConfig, PromotionConfig, SafetyGuardConfig
from tasks.promotion.task import decide_promotion

__all__ = ["GuardConfig", "PromotionConfig", "SafetyGuardConfig", "decide_promotion"]
