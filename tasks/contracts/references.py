"""References: a kind and a hash, resolved in the run's own store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator

from tasks.contracts.base import SHA256, Contract, DatasetKind


class Reference(Contract):
    """Identifies an object by kind and hash; the run's own store locates it (:func:`tasks.core.storage.run_store`).

    No stored record contains a location: after a store is copied elsewhere, all earlier records remain valid.
    """

    @model_validator(mode="before")
    @classmethod
    def _drop_uri(cls, fields: Any) -> Any:
        """Records of earlier releases contain a URI, which may be outdated."""
        if isinstance(fields, Mapping) and "uri" in fields:
            return {name: value for name, value in fields.items() if name != "uri"}
        return fields


class DatasetRef(Reference):
    """A Parquet data set in the store; the basis of lineage.

    ``sha256`` covers the rows *and* ``kind``, ``parents`` and ``passed``, which are written into the file's own schema
    metadata. The chain of parents is therefore tamper-evident, and two equal tables with different histories differ.
    """

    sha256: str = Field(pattern=SHA256)
    num_rows: int = Field(ge=0)
    kind: DatasetKind
    parents: tuple[str, ...] = ()
    passed: tuple[str, ...] = ()


class FileRef(Reference):
    """One file in the store; ``suffix`` is the suffix of its name there, such as ``.html``."""

    sha256: str = Field(pattern=SHA256)
    size_bytes: int = Field(ge=0)
    suffix: str = Field("", pattern=r"^(\.[a-z0-9]+)*$")


class FolderRef(Reference):
    """A folder in the store (a model, an adapter); ``sha256`` is the hash of its sorted list of file digests."""

    sha256: str = Field(pattern=SHA256)
    num_files: int = Field(ge=0)
    size_bytes: int = Field(ge=0)
