"""What a training learns that continues an earlier version."""

from __future__ import annotations

from tasks.contracts.base import Contract
from tasks.contracts.preparation import Split
from tasks.contracts.training import StartingPoint


class TrainingRows(Contract):
    """The rows that a training learns, the version that it continues (None: the base model), and both in words."""

    rows: Split
    start: StartingPoint | None
    reason: str
