"""Exchanges with a model, as telemetry and logs record them, become records of conversations."""

from tasks.ingest.exchanges.reading import with_conversations

__all__ = ["with_conversations"]
