"""What remains of a person who was forgotten: hashes that show what was removed, and keyed ones that keep rows away."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from tasks.contracts.base import SHA256, Contract


class Tombstone(Contract):
    """Stands for the bytes of an object that were removed, so that whoever refers to the object can still verify it."""

    sha256: str = Field(pattern=SHA256)
    """The object's name, the hash of its bytes as a stage wrote them."""
    remaining_sha256: str = Field(pattern=SHA256)
    """The hash of its bytes now."""
    certificate: str


class ForgottenRows(Contract):
    """Rows that must not come back from a source, as keyed hashes of values, of whole rows and of ids.

    ``key_env`` and ``key_block`` name where the key comes from, and ``key_id`` which key it was.
    """

    key_env: str
    key_block: str | None = None
    key_id: str
    values: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    """Letters and digits of each value, so that few parts of a text need to be hashed."""
    rows: tuple[str, ...] = ()


class ForgottenObject(Contract):
    """One place that held something, and what became of it."""

    kind: str
    name: str
    action: str
    num_rows: int = 0
    remaining_sha256: str | None = None


class ForgetCertificate(Contract):
    """What was removed, where, when and at whose request; without any value."""

    name: str
    requested_by: str
    forgotten_at: datetime
    num_values: int
    num_rows: int
    key_id: str
    objects: tuple[ForgottenObject, ...]
    marked_versions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
