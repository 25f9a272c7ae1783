"""Validates rows by an expectation suite made from the configuration."""

from tasks.validation.config import ValidationConfig
from tasks.validation.task import validate

__all__ = ["ValidationConfig", "validate"]
