"""Refresh: the rows that a training learns when it continues the champion."""

from tasks.refresh.task import choose_training_rows

__all__ = ["choose_training_rows"]
