"""Pruning: what no version in use, no recent run and no pointer needs any more is removed from the store."""

from tasks.pruning.config import PruningConfig
from tasks.pruning.task import find_prunable, remove_prunable

__all__ = ["PruningConfig", "find_prunable", "remove_prunable"]
