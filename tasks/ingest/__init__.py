"""Reads a source once and freezes it as canonical rows."""

from tasks.ingest.config import LogConfig, SourceConfig
from tasks.ingest.task import count_new_rows, find_previous_snapshot, remember_snapshot, take_log, take_snapshot

__all__ = [
    "LogConfig",
    "SourceConfig",
    "count_new_rows",
    "find_previous_snapshot",
    "remember_snapshot",
    "take_log",
    "take_snapshot",
]
