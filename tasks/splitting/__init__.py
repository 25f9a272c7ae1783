"""Freezes a test set, keeps training rows away from it, and splits the rest into train and validation rows."""

from tasks.splitting.config import SplitConfig
from tasks.splitting.task import decontaminate, freeze_test_set, split

__all__ = ["SplitConfig", "decontaminate", "freeze_test_set", "split"]
