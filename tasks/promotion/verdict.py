"""What one guard says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tasks.contracts.evaluation import Comparison


@dataclass(frozen=True)
class GuardVerdict:
    """What one guard says: ``reason`` and ``remedy`` are empty when it holds, unless it had nothing to hold."""

    state: Literal["held", "unsettled", "broken"]
    comparison: Comparison | None = None
    reason: str = ""
    remedy: str = ""
