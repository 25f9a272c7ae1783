"""Why a record cannot become a row."""

from __future__ import annotations


class RowFaultError(Exception):
    """A record that cannot become a row; caught where rows are made, never seen outside ingestion."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
