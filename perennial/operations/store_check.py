"""Verifies a whole store: the bytes of every object against its name, the references of every pointer and dossier.

To be run after a restore and from time to time: only reading shows that data is intact.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import TypeAdapter

from tasks.contracts.references import DatasetRef, FileRef, FolderRef
from tasks.core.errors import InputError, PerennialError
from tasks.core.storage import Store

Reference = DatasetRef | FileRef | FolderRef

_NAMES = {
    "data set": re.compile(r"objects/([0-9a-f]{2})/(\1[0-9a-f]{62})\.(?:parquet|json)"),
    "file": re.compile(r"files/([0-9a-f]{2})/(\1[0-9a-f]{62})((?:\.[a-z0-9]+)*)"),
    "folder": re.compile(r"folders/([0-9a-f]{2})/(\1[0-9a-f]{62})/.+"),
}
_REFERENCES: TypeAdapter[Reference] = TypeAdapter(Reference)
_RECORDS = {"pointers": "pointer", "dossiers": "dossier file"}
_SHAPES = (DatasetRef, FileRef, FolderRef)


@dataclass(frozen=True)
class StoreFinding:
    """A finding about a store.

    Attributes:
        severity: ``fault`` if data is lost or altered, ``note`` if it only takes up space or was pruned.
        name: The name within the store.
        what: The finding, without any content.
    """

    severity: Literal["fault", "note"]
    name: str
    what: str


@dataclass(frozen=True)
class StoreReport:
    """The objects of a store by kind, and the findings."""

    counts: Mapping[str, int]
    size_bytes: int
    findings: tuple[StoreFinding, ...]

    @property
    def faults(self) -> tuple[StoreFinding, ...]:
        """The findings that require a restore."""
        return tuple(finding for finding in self.findings if finding.severity == "fault")


def verify_store(
    store: Store, on_progress: Callable[[int, int], None], needed: Iterable[tuple[str, Reference, bool]] = ()
) -> StoreReport:
    """Reads and verifies everything in the store.

    Args:
        store: The store; nothing in it is changed.
        on_progress: Called with the number of objects read and their total.
        needed: References of registered versions that it must hold: the owner of each, and whether the registry has a copy
            to fetch it from, so that its loss is no fault.

    Raises:
        InputError: The store is empty, which proves no restore.
        StoreError: The store does not respond.
    """
    objects: dict[tuple[str, str], Reference | None] = {}
    findings: list[StoreFinding] = []
    size_bytes = 0
    for folder in ("objects", "files", "folders"):
        for name, size, _ in store.walk(folder):
            size_bytes += size
            key = _object_of(name)
            if key is None:
                findings.append(StoreFinding("note", name, "an unknown file, which nothing reads"))
            else:
                objects.setdefault(key, None)
    for done, (kind, name) in enumerate(sorted(objects)):
        findings += _read_back(store, kind, name)
        on_progress(done + 1, len(objects))
    records = [*store.walk("pointers"), *store.walk("dossiers")]
    if not objects and not records:
        raise InputError(
            store.uri,
            "nothing",
            "a store that a run has written to",
            "Correct `store` in the configuration, or restore the store there.",
        )
    findings += [finding for name, _, _ in records if name.endswith(".json") for finding in _check_record(store, name)]
    for owner, ref, is_carried in needed:
        if not store.holds(ref):
            effect = "has a copy, fetched when it is next champion" if is_carried else "needs it"
            findings.append(StoreFinding("note" if is_carried else "fault", _label(ref), f"is missing; {owner} {effect}"))
    counts = Counter(kind for kind, _ in objects)
    counts += Counter(_RECORDS[name.partition("/")[0]] for name, _, _ in records)
    return StoreReport(dict(sorted(counts.items())), size_bytes, tuple(findings))


def _object_of(name: str) -> tuple[str, str] | None:
    """Kind and name of the object that a file belongs to; None for a name that the store never writes."""
    for kind, pattern in _NAMES.items():
        if match := pattern.fullmatch(name):
            return kind, match.group(2) + (match.group(3) if kind == "file" else "")
    return None


def _read_back(store: Store, kind: str, name: str) -> Iterator[StoreFinding]:
    sha256, suffix = name[:64], name[64:]
    try:
        if kind == "data set":
            dataset = store.find_dataset(sha256)
            if dataset is None:
                yield StoreFinding("note", f"objects/{sha256}", "a manifest without its data set, which nothing reads")
            else:
                store.read_table(dataset)
        elif kind == "file":
            store.read_bytes(FileRef(sha256=sha256, size_bytes=0, suffix=suffix))
        else:
            folder = FolderRef(sha256=sha256, num_files=0, size_bytes=0)
            if store.holds(folder):
                store.fetch_folder(folder)
            else:
                yield StoreFinding("note", f"folders/{sha256}", "an unfinished folder, which nothing reads")
    except PerennialError as error:
        yield StoreFinding("fault", error.where, f"{error.found}; expected {error.expected}")


def _check_record(store: Store, name: str) -> Iterator[StoreFinding]:
    """Checks the references of a pointer or a dossier; pruning may have removed those of a dossier."""
    try:
        document = json.loads(store.read_named(name) or b"null")
    except ValueError:
        yield StoreFinding("fault", name, "invalid JSON")
        return
    missing = [ref for ref in set(_references_in_json(document)) if not store.holds(ref)]
    if missing and name.startswith("pointers/"):
        yield from (StoreFinding("fault", name, f"points to {_label(ref)}, which is missing") for ref in missing)
    elif missing:
        yield StoreFinding("note", name, f"{len(missing)} objects that it refers to are missing, as after pruning")


def _references_in_json(value: Any) -> Iterator[Reference]:
    if isinstance(value, Mapping):
        if "sha256" in value and any(set(value) - {"uri"} <= set(shape.model_fields) for shape in _SHAPES):
            yield _REFERENCES.validate_python(value)
            return
        for item in value.values():
            yield from _references_in_json(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references_in_json(item)


def _label(ref: Reference) -> str:
    kind = {DatasetRef: "data set", FileRef: "file", FolderRef: "folder"}[type(ref)]
    return f"{kind} {ref.sha256[:12]}"
