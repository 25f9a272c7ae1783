"""Confidential content: rows that hold secrets or deny-listed terms leave the training data."""

from tasks.confidential.config import ConfidentialConfig, SecretPattern
from tasks.confidential.task import filter_confidential

__all__ = ["ConfidentialConfig", "SecretPattern", "filter_confidential"]
