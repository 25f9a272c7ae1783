"""What can be removed from store and registry."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tasks.contracts.base import Contract
from tasks.contracts.references import FileRef


class PruneCandidate(Contract):
    """One removable object: a model version (``<model>/<version>``), or an object of the store by its name."""

    kind: Literal["model version", "data set", "file", "folder", "work folder", "unfinished write"]
    name: str
    size_bytes: int = Field(ge=0)
    age_days: float


class OldVersions(Contract):
    """The removable versions of a model, and what all other versions need: digests, and the runs that made them."""

    removable: tuple[PruneCandidate, ...] = ()
    needed: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


class PruneReport(Contract):
    """What can be removed or was: totals as ``(kind, number, bytes)``, single objects in ``listing``.

    ``note`` explains why the list excludes objects that only the registry can release.
    """

    removed: bool = False
    note: str = ""
    totals: tuple[tuple[str, int, int], ...] = ()
    listing: FileRef

    @property
    def num_items(self) -> int:
        """Number of objects."""
        return sum(count for _, count, _ in self.totals)

    @property
    def size_bytes(self) -> int:
        """Their size in the store."""
        return sum(size for _, _, size in self.totals)
