"""A measured figure with its interval."""

from __future__ import annotations

from tasks.contracts.base import Contract


class Measurement(Contract):
    """A measured figure, with its interval if known. ``value`` is None if it was not measured, never 0."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    num_samples: int | None = None
    note: str = ""
