"""Times with a time zone; a time without one is taken as UTC."""

from __future__ import annotations

from datetime import UTC, datetime


def ensure_utc(time: datetime) -> datetime:
    """The time with a time zone: its own, or UTC if it has none."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def is_timestamp(text: str) -> bool:
    """Whether a text is an ISO 8601 time that :func:`parse_timestamp` reads."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def parse_timestamp(text: str) -> datetime:
    """The time of an ISO 8601 text, with a time zone.

    Raises:
        ValueError: The text is no ISO 8601 time.
    """
    return ensure_utc(datetime.fromisoformat(text))
