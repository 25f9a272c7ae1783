"""Reads a source once and freezes it as canonical rows."""

from tasks.ingest.config import SourceConfig
from tasks.ingest.task import count_new_rows, find_previous_snapshot, remember_snapshot, take_snapshot

__all__ = ["SourceConfig", "count_new_rows", "find_previous_snapshot", "remember_snapshot", "take_snapshot"]
