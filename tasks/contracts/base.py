"""Base classes of the settings and of the records that cross a task boundary."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

DatasetKind = Literal["messages", "preferences", "quarantine", "table"]
"""``messages`` and ``preferences`` are training rows (see :mod:`tasks.core.rows`); ``quarantine`` holds quarantined rows
with their reason; ``table`` is any other table (findings, issues, scores)."""
SHA256 = r"^[0-9a-f]{64}$"
"""A hexadecimal SHA-256. It becomes part of a path, so no other text is accepted."""


class FrozenModel(BaseModel):
    """An immutable model that rejects unknown fields; base of all settings and contracts."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Contract(FrozenModel):
    """Base of every record that crosses a task boundary."""
