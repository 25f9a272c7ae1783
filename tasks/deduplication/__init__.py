"""Drops repeated rows and names clusters of similar ones."""

from tasks.deduplication.config import DeduplicationConfig
from tasks.deduplication.task import deduplicate

__all__ = ["DeduplicationConfig", "deduplicate"]
