"""Times with a zone: one without is UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def aware(moment: datetime) -> datetime:
    """The moment with a zone."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_timestamp(text: str) -> datetime:
    """The time that an ISO 8601 text says, with a zone.

    Raises:
        ValueError: It says none.
    """
    return aware(datetime.fromisoformat(text))
