"""Alerts to work with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.contracts.alerts import Alert

START = datetime(2026, 5, 1, 6, tzinfo=UTC)


@pytest.fixture
def make_alert() -> Callable[..., Alert]:
    def make(fingerprint: str = "f1", **changes: Any) -> Alert:
        fields = {
            "fingerprint": fingerprint,
            "model": "desk",
            "name": "ThumbsDown",
            "signal": "feedback",
            "sender": "alertmanager",
            "starts_at": START,
            "window_start": START - timedelta(hours=6),
            "window_end": START,
        }
        return Alert(**{**fields, **changes})

    return make
