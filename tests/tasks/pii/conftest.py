"""One policy per mode, so that models are loaded once a session."""

from __future__ import annotations

import pytest

from tasks.pii.config import PiiConfig
from tasks.pii.policy import Policy


@pytest.fixture(scope="session")
def strict() -> Policy:
    return Policy(PiiConfig())


@pytest.fixture(scope="session")
def turbo() -> Policy:
    return Policy(PiiConfig(mode="turbo"))
