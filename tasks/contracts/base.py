"""What every setting and every record that crosses a task boundary is made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

DatasetKind = Literal["messages", "preferences", "quarantine", "table"]
"""``messages`` and ``preferences`` are training rows (see :mod:`tasks.core.rows`); ``quarantine`` holds refused rows with
their reason; ``table`` is any other tabular record (findings, issues, scores)."""
SHA256 = r"^[0-9a-f]{64}$"
"""A hexadecimal SHA-256. It becomes part of a path, so nothing else may stand in its place."""


class FrozenModel(BaseModel):
    """A model that never changes and refuses what it does not know; base of every setting and every contract."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Contract(FrozenModel):
    """Base of every record that crosses a task boundary."""
