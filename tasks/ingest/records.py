"""The raw records of a source, as every reader gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.ingest.config import Ceilings
from tasks.ingest.containers import too_many


@dataclass(frozen=True)
class Record:
    """One raw record: its ``place`` (``line-12``), its ``fields``, or the ``fault`` that kept it from being read.

    ``raw`` is the text it came from, when it came from text.
    """

    place: str
    fields: Mapping[str, Any]
    raw: str | None = None
    fault: str | None = None


class Records(Collection[Record]):
    """The records of a source, read anew on each iteration, so that they are never all in memory.

    Args:
        read: Reads them from the start.
        source: The source's name, for the error.
        ceilings: How many there may be.

    Raises:
        InputError: There are more.
    """

    def __init__(self, read: Callable[[], Iterator[Record]], source: str, ceilings: Ceilings) -> None:
        self._read = read
        self._count = 0
        for _ in self:
            self._count += 1
            if self._count > ceilings.max_records:
                raise too_many(source, ceilings)

    def __iter__(self) -> Iterator[Record]:
        return self._read()

    def __len__(self) -> int:
        return self._count

    def __contains__(self, record: object) -> bool:
        return any(record == other for other in self)


@dataclass(frozen=True)
class Source:
    """All raw records of a source, with the SHA-256 of its bytes, and notes on how they were read."""

    name: str
    sha256: str
    records: Collection[Record]
    notes: tuple[str, ...] = ()
