"""Personal data: found, replaced, and proved to be gone."""

from tasks.pii.config import NerConfig, PiiConfig, VerificationConfig
from tasks.pii.task import scrub, verify_scrub

__all__ = ["NerConfig", "PiiConfig", "VerificationConfig", "scrub", "verify_scrub"]
