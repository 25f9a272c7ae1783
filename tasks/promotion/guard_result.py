"""The result of one guard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.contracts.evaluation import Comparison


@dataclass(frozen=True)
class GuardResult:
    """The result of one guard; ``reason`` and ``remedy`` are empty when it passes, unless there was nothing to check."""

    state: Literal["passed", "inconclusive", "violated"]
    comparison: Comparison | None = None
    reason: str = ""
    remedy: str = ""
