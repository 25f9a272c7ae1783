"""Reads a source once and freezes it as canonical rows."""

from tasks.ingest.config import SourceConfig
from tasks.ingest.task import take_snapshot

__all__ = ["SourceConfig", "take_snapshot"]
