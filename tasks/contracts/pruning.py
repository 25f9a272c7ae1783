"""What may be removed from store and registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contracts.base import Contract
from tasks.contracts.references import FileRef


class PruneCandidate(Contract):
    """One thing that may go: a model version (``<model>/<version>``), or what lies under a name of the store."""

    kind: Literal["model version", "data set", "file", "folder", "work folder", "unfinished write"]
    name: str
    size_bytes: int = Field(ge=0)
    age_days: float


class OldVersions(Contract):
    """The versions of a model that may go, and what all other versions need: digests, and the runs that made them."""

    removable: tuple[PruneCandidate, ...] = ()
    needed: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class PruneReport(Contract):
    """What may go or has gone: totals here as ``(kind, number, bytes)``, each thing in ``listing``.

    ``note`` says why the list leaves out what only the registry could say is not needed.
    """

    removed: bool = False
    note: str = ""
    totals: tuple[tuple[str, int, int], ...] = ()
    listing: FileRef

    @property
    def num_items(self) -> int:
        """How many things."""
        return sum(count for _, count, _ in self.totals)

    @property
    def size_bytes(self) -> int:
        """Their bytes in the store."""
        return sum(size for _, _, size in self.totals)
