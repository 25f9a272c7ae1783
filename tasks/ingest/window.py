"""The window of time that rows are taken from, by each row's ``created_at``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from tasks.core.rows import Row
from tasks.core.timestamps import parse_timestamp
from tasks.ingest.formats import RowFaultError


@dataclass(frozen=True)
class Window:
    """From ``after`` (included) to ``before`` (excluded), both with a zone; None leaves that side open."""

    after: datetime | None
    before: datetime | None

    @property
    def is_open(self) -> bool:
        """Whether every row lies inside, those without a time included."""
        return self.after is None and self.before is None

    def holds(self, row: Row) -> bool:
        """Whether the row was made inside the window.

        Raises:
            RowFaultError: The row has no time, or one that is not ISO 8601.
        """
        moment = created_at(row)
        return not (self.after and moment < self.after) and not (self.before and moment >= self.before)


def created_at(row: Row) -> datetime:
    """When the row was made; a time without a zone is UTC.

    Raises:
        RowFaultError: The row has no time, or one that is not ISO 8601.
    """
    text = row.get("created_at")
    if not text:
        raise RowFaultError("missing_created_at", "created_at")
    try:
        return parse_timestamp(text)
    except ValueError:
        raise RowFaultError("unreadable_created_at", "created_at") from None


def count_rows(rows: Iterable[Row], window: Window) -> int:
    """Rows known to lie inside the window; one without a readable time is not counted."""
    return sum(_is_inside(row, window) for row in rows)


def _is_inside(row: Row, window: Window) -> bool:
    try:
        return window.holds(row)
    except RowFaultError:
        return False
