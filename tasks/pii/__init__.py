"""Personal data: found, replaced, and proved to be gone."""

from tasks.pii.config import NerConfig, PiiConfig, VerificationConfig
from tasks.pii.task import cut_shards, join_shards, scrub, scrub_shard, verify_scrub

__all__ = [
    "NerConfig",
    "PiiConfig",
    "VerificationConfig",
    "cut_shards",
    "join_shards",
    "scrub",
    "scrub_shard",
    "verify_scrub",
]
