"""Long lists of terms in the settings: inline or in a file, passed by reference, never shown.

Prefect stores the parameters of every flow, prints rejected ones, and limits their size; a deny list is confidential and
may have a hundred thousand terms. So a list goes into the run's store before a flow is called (:func:`by_reference`), and
the stage that needs it reads it back (:func:`in_full`).
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, Discriminator, Field, Tag
from pydantic.fields import FieldInfo

from tasks.contracts.base import FrozenModel
from tasks.core.documents import read_text
from tasks.core.errors import ConfigError

if TYPE_CHECKING:
    from tasks.core.storage import Store

ModelT = TypeVar("ModelT", bound=BaseModel)


class ListFile(FrozenModel):
    """A list in a UTF-8 file, one item per line; `#` starts a comment."""

    file: str = Field(min_length=1, description="Path of the file, read when the run starts.")


class KeptList(FrozenModel):
    """A list in the run's store."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of the list's file in the store.")
    size_bytes: int = Field(ge=0, description="Size of that file.")
    num_items: int = Field(ge=0, description="Number of items.")


CONFIDENTIAL = ("denied_terms",)
"""Names of lists that are never shown."""


def _form_of(value: Any) -> str:
    """Which of the three forms a value has, so that a validation error covers only that form."""
    if isinstance(value, Mapping):
        return "file" if "file" in value or not value else "kept"
    return "file" if isinstance(value, ListFile) else "kept" if isinstance(value, KeptList) else "list"


Listing = Annotated[
    Annotated[tuple[str, ...], Tag("list")] | Annotated[ListFile, Tag("file")] | Annotated[KeptList, Tag("kept")],
    Discriminator(_form_of),
]
"""The type of such a setting."""


def is_listing(field: FieldInfo) -> bool:
    """Whether a setting is a list of terms."""
    return any(KeptList in typing.get_args(option) for option in typing.get_args(field.annotation))


def items_of(listing: Listing) -> tuple[str, ...]:
    """The items of a list that is inline, or was read by :func:`in_full`."""
    if not isinstance(listing, tuple):
        raise AssertionError("a list was used before it was read; see tasks.core.term_lists.in_full")
    return listing


def by_reference(settings: ModelT, store: Store) -> ModelT:
    """The settings with every list in the store and replaced by a reference.

    Raises:
        ConfigError: A list's file cannot be read.
        StoreError: The store cannot be written.
    """

    def keep(name: str, listing: Listing) -> Listing:
        if isinstance(listing, KeptList) or not listing:
            return listing
        items = _read(name, listing) if isinstance(listing, ListFile) else listing
        ref = store.write_bytes(json.dumps(items, ensure_ascii=False).encode("utf-8", "surrogatepass"), ".json")
        return KeptList(sha256=ref.sha256, size_bytes=ref.size_bytes, num_items=len(items))

    return _changed(settings, keep)


def in_full(settings: ModelT) -> ModelT:
    """The settings with every list inline, read from its file or from the run's store.

    Raises:
        ConfigError: A list's file cannot be read.
        IntegrityError: A list is missing from the store, or altered.
    """

    def read(name: str, listing: Listing) -> Listing:
        if isinstance(listing, ListFile):
            return _read(name, listing)
        if isinstance(listing, KeptList):
            from tasks.contracts.references import FileRef
            from tasks.core.storage import run_store

            ref = FileRef(sha256=listing.sha256, size_bytes=listing.size_bytes, suffix=".json")
            return tuple(json.loads(run_store().read_bytes(ref).decode("utf-8", "surrogatepass")))
        return listing

    return _changed(settings, read)


def listings_in(settings: BaseModel) -> dict[str, Listing]:
    """Every list in the settings by its path, such as ``prepare.confidential.denied_terms``."""
    found: dict[str, Listing] = {}

    def note(name: str, listing: Listing) -> Listing:
        found[name] = listing
        return listing

    _changed(settings, note)
    return found


def _changed(settings: ModelT, change: Callable[[str, Listing], Listing], path: str = "") -> ModelT:
    """The settings with each list replaced by the result of ``change``."""
    changes: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value, where = getattr(settings, name), f"{path}{name}"
        if is_listing(field):
            changes[name] = change(where, value)
        elif isinstance(value, BaseModel):
            changes[name] = _changed(value, change, f"{where}.")
        elif isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
            changes[name] = tuple(_changed(item, change, f"{where}.{number}.") for number, item in enumerate(value))
    return settings.model_copy(update=changes)


def _read(name: str, listing: ListFile) -> tuple[str, ...]:
    try:
        text = read_text(Path(listing.file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{name}.file: {listing.file}",
            type(error).__name__,
            "a readable UTF-8 file with one item per line",
            "Correct the path or the encoding.",
        ) from None
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return tuple(line for line in lines if line)
