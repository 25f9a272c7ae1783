"""Bias audit: who is represented in the data, and whether outcomes differ between groups."""

from tasks.bias.config import BiasConfig
from tasks.bias.task import audit_bias

__all__ = ["BiasConfig", "audit_bias"]
