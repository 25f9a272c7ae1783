"""Freezes a test set, holds out a fresh one, keeps training rows away from both, and splits the rest."""

from tasks.splitting.config import SplitConfig
from tasks.splitting.task import decontaminate, freeze_test_set, hold_out_fresh, split

__all__ = ["SplitConfig", "decontaminate", "freeze_test_set", "hold_out_fresh", "split"]
