"""The artifact store of runs: content-addressed, atomic, verified on every read.

A store is a folder, local or in S3-compatible storage::

    objects/ab/abcdef….parquet   data sets, and abcdef….json, a manifest for people, which nothing reads
    files/ab/abcdef….html        single files
    folders/ab/abcdef…/          models and adapters, listed in their own MANIFEST.json
    pointers/benchmarks/x.json   names for data sets and records
    dossiers/<run>/dossier.html  readable copies for people; only these and pointers are ever replaced
    tombstones/ab/abcdef….json   the hash of what is left of an object from which a person was removed

The name of an object is the SHA-256 of its bytes, so a repeated write is a no-op and a read detects a changed byte. A local
write goes to a temporary name in the same folder, is flushed, then renamed; object storage writes whole objects, and the
manifest of a folder last. References and pointers contain a name and no location: a run opens its store
(:func:`open_store`) and resolves every reference there, so that a copied store remains valid. A pointer changes by compare
and set (:meth:`Store.update_record`), so that concurrent runs do not overwrite each other's changes.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from tasks.contracts.base import Contract, DatasetKind
from tasks.contracts.forgetting import Tombstone
from tasks.contracts.references import DatasetRef, FileRef, FolderRef
from tasks.core.errors import IntegrityError, LineageError, StoreError
from tasks.core.rows import SCHEMAS, rows_of, rows_to_table, with_all_columns
from tasks.core.scratch import own_folder
from tasks.core.storage.backends import RemoteBackend
from tasks.core.storage.digests import sha256_of, sha256_of_json
from tasks.core.storage.failures import store_errors
from tasks.core.storage.folders import (
    MANIFEST,
    check_exactly,
    digest_folder,
    fetch_into_place,
    read_manifest,
    verify_folder,
)
from tasks.core.storage.opening import open_backend
from tasks.core.storage.writing import UNFINISHED

ContractT = TypeVar("ContractT", bound=Contract)

logger = logging.getLogger(__name__)

_LINEAGE_KEY = b"perennial.lineage"
_MAX_ATTEMPTS = 200
_STORED = re.compile(r"(objects|files|folders)/(?P<shard>[0-9a-f]{2})/(?P<sha256>(?P=shard)[0-9a-f]{62})")
_WORK = re.compile(r"work/((sft|dpo|kto|grpo)-[0-9a-f]{1,64}|merge-[a-z0-9_]{8})")
_SUFFIX = re.compile(r"(\.[a-z0-9]+)*")

MIXED = "mixed"
"""Gate of a data set of several sources: its rows descend from all of its parents, not only from the first."""


class Store:
    """A content-addressed store under one root.

    Args:
        root: A local path, or a URL (``file://``, ``s3://``).

    Raises:
        StoreError: This kind of storage has no compare-and-set.
        MissingDependencyError: This kind of storage needs a package that is not installed.
    """

    def __init__(self, root: str | Path) -> None:
        self._backend = open_backend(str(root))

    @property
    def uri(self) -> str:
        """The root as a URL."""
        return self._backend.uri

    @property
    def local_path(self) -> Path | None:
        """The root as a path on this machine, or None for object storage."""
        return self._backend.local_path

    # -- data sets

    def write_table(
        self,
        table: pa.Table,
        *,
        kind: DatasetKind,
        parents: Iterable[DatasetRef | str] = (),
        passed: Iterable[str] = (),
    ) -> DatasetRef:
        """Writes a table with its lineage and returns the reference.

        Args:
            table: Rows; for the canonical kinds, with exactly the schema of :data:`tasks.core.rows.SCHEMAS`.
            kind: The kind of the rows.
            parents: The data sets that it was made from (the rows descend from the first one), or the SHA-256 of a raw
                source.
            passed: All gates that these rows passed, oldest first.
        """
        if kind in SCHEMAS and table.schema.names != SCHEMAS[kind].names:
            raise AssertionError(f"{kind} rows have columns {table.schema.names}, not {SCHEMAS[kind].names}")
        lineage = {
            "kind": kind,
            "parents": [parent if isinstance(parent, str) else parent.sha256 for parent in parents],
            "passed": list(passed),
        }
        # In one chunk, because the pages of a Parquet file, and so its hash, depend on the chunks of the table.
        table = table.combine_chunks().replace_schema_metadata({_LINEAGE_KEY: json.dumps(lineage, sort_keys=True).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        data = buffer.getvalue()
        sha256 = sha256_of(data)
        self._keep(f"objects/{sha256[:2]}/{sha256}.parquet", data)
        ref = DatasetRef(
            sha256=sha256,
            num_rows=table.num_rows,
            kind=kind,
            parents=tuple(lineage["parents"]),
            passed=tuple(lineage["passed"]),
        )
        self._keep(f"objects/{sha256[:2]}/{sha256}.json", ref.model_dump_json(indent=2).encode())
        return ref

    def write_rows(
        self,
        rows: list[dict[str, Any]],
        *,
        kind: DatasetKind,
        parents: Iterable[DatasetRef | str] = (),
        passed: Iterable[str] = (),
    ) -> DatasetRef:
        """Writes canonical rows given as dictionaries; see :meth:`write_table`."""
        return self.write_table(rows_to_table(rows, kind), kind=kind, parents=parents, passed=passed)

    def write_quarantine(
        self, rows: list[dict[str, Any]], *, parents: Iterable[DatasetRef | str], passed: Iterable[str] = ()
    ) -> DatasetRef | None:
        """Writes quarantine rows (see :func:`tasks.core.quarantine.quarantine_row`); None when there are none."""
        return self.write_rows(rows, kind="quarantine", parents=parents, passed=passed) if rows else None

    def read_table(self, ref: DatasetRef, columns: list[str] | None = None) -> pa.Table:
        """Reads a data set after verifying its bytes by its hash.

        Raises:
            IntegrityError: The file is missing, or its bytes or lineage differ from the reference.
        """
        table = pq.read_table(io.BytesIO(self._get(ref)), columns=columns)
        lineage = _lineage_in(table.schema)
        expected = {"kind": ref.kind, "parents": list(ref.parents), "passed": list(ref.passed)}
        if lineage != expected:
            raise IntegrityError(
                self.uri_of(ref), f"lineage {lineage}", f"{expected}", "The reference was altered; run the stage again."
            )
        return with_all_columns(table, ref.kind) if ref.kind in SCHEMAS and columns is None else table

    def read_rows(self, ref: DatasetRef) -> list[dict[str, Any]]:
        """The rows of a data set as dictionaries; see :meth:`read_table`."""
        return rows_of(self.read_table(ref))

    def find_dataset(self, sha256: str) -> DatasetRef | None:
        """The data set with this hash, or None if this store does not hold it.

        The reference is made from the verified bytes, never from the manifest beside them.

        Raises:
            IntegrityError: The bytes under that name have another hash, or no lineage.
        """
        name = f"objects/{sha256[:2]}/{sha256}.parquet"
        if not self._backend.is_file(name):
            return None
        file = pq.ParquetFile(io.BytesIO(self._read_verified(name, sha256)))
        try:
            return DatasetRef(
                sha256=sha256,
                num_rows=file.metadata.num_rows,
                **_lineage_in(file.schema_arrow),
            )
        except ValidationError as error:
            raise IntegrityError(
                f"{self.uri}/{name}", "a file without the lineage of a data set", "a data set of this store", "Remove it."
            ) from error

    def verify_lineage(self, ref: DatasetRef, *, descends_from: str | Iterable[str], passed: Iterable[str]) -> None:
        """Verifies that a data set descends from each of its snapshots, and passed the required gates.

        The chain follows first parents, and all parents of a mixture; each link is read from its own hashed file, so that
        neither an outdated path nor an edited reference is accepted.

        Args:
            ref: The data set to train on.
            descends_from: SHA-256 of the snapshot of the run, or of each snapshot of a mixture.
            passed: The required gates, also of every part of a mixture.

        Raises:
            LineageError: The chain is broken, ends at another snapshot, or lacks a gate.
        """
        required = {descends_from} if isinstance(descends_from, str) else set(descends_from)
        passed = tuple(passed)
        self._check_gates(ref, passed)
        self.read_table(ref, columns=[])
        reached: set[str] = set()
        chains: list[tuple[DatasetRef, ...]] = [(ref,)]
        while chains:
            chain = chains.pop()
            if chain[-1].sha256 in required:
                reached.add(chain[-1].sha256)
                continue
            is_mixed = MIXED in chain[-1].passed
            parents = chain[-1].parents if is_mixed else chain[-1].parents[:1]
            links = [self.find_dataset(parent) for parent in parents]
            for link in links or [None]:
                if link is None:
                    raise self._broken_chain(chain, required)
                if is_mixed:
                    self._check_gates(link, passed)
                chains.append((*chain, link))
        if reached != required:
            raise self._broken_chain((ref,), required - reached)

    @staticmethod
    def _broken_chain(chain: tuple[DatasetRef, ...], required: set[str]) -> LineageError:
        return LineageError(
            f"data set {chain[0].sha256[:12]}",
            f"a chain that ends at {' <- '.join(link.sha256[:12] for link in chain)}",
            f"a descendant of snapshot {', '.join(sorted(sha256[:12] for sha256 in required))}",
            "It was not made from the snapshot of this run; prepare that snapshot and train on the result.",
        )

    @staticmethod
    def _check_gates(ref: DatasetRef, passed: Iterable[str]) -> None:
        missing = [gate for gate in passed if gate not in ref.passed]
        if missing:
            raise LineageError(
                f"data set {ref.sha256[:12]}",
                f"gates {', '.join(ref.passed) or 'none'}",
                f"also {', '.join(missing)}",
                "Train on the output of prepare_dataset.",
            )

    # -- files and folders

    def write_bytes(self, data: bytes, suffix: str) -> FileRef:
        """Writes one file, named by its hash and ``suffix`` (such as ``.html``)."""
        ref = FileRef(sha256=sha256_of(data), size_bytes=len(data), suffix=suffix)
        self._keep(_name_of(ref), data)
        return ref

    def read_bytes(self, ref: FileRef) -> bytes:
        """Reads a file after verifying its bytes by its hash.

        Raises:
            IntegrityError: The file is missing or altered.
        """
        return self._get(ref)

    def add_folder(self, folder: Path, *, follow_links: bool = False) -> FolderRef:
        """Copies a local folder into the store; its files keep their relative names.

        The files are written under a temporary name that is renamed at the end (in a bucket the manifest is written last),
        so the write is atomic, and the rest of a killed or damaged write is replaced.

        Args:
            folder: Only regular files, in real folders.
            follow_links: Links to files count as those files, for a folder of links that the caller has made.

        Raises:
            IntegrityError: It contains something else, which the error names, or changes while it is read.
        """
        with store_errors(str(folder)):
            digests = digest_folder(folder, follow_links=follow_links)
            size_bytes = sum((folder / name).stat().st_size for name in digests)
        sha256 = sha256_of_json(digests)
        name = f"folders/{sha256[:2]}/{sha256}"
        with store_errors(f"{self.uri}/{name}"):
            self._backend.add_folder(name, folder, digests, follow_links=follow_links)
        return FolderRef(sha256=sha256, num_files=len(digests), size_bytes=size_bytes)

    def fetch_folder(self, ref: FolderRef, cache: Path | None = None) -> Path:
        """A verified local path of the folder: in the store itself if it is local, else a copy.

        Args:
            ref: The folder.
            cache: The folder of copies, which only this user can write to; by default in the embedded folder.

        Raises:
            IntegrityError: A file is missing, altered or unexpected, or a link; the error names it.
            StoreError: Other users have access to the cache, or the store does not respond.
        """
        name, uri = _name_of(ref), self.uri_of(ref)
        if self.local_path is not None:
            with store_errors(uri):
                verify_folder(self.local_path / name, ref.sha256, uri)
            return self.local_path / name
        assert isinstance(self._backend, RemoteBackend)
        backend, digests = self._backend, self.digests_of(ref)
        copies = cache or Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute() / "folders"
        # Files that others may have written before it is closed are not used, see fetch_into_place.
        private = own_folder(copies, private=True, close=True)
        with store_errors(uri):
            found = {path.removeprefix(f"{name}/") for path, _, _ in backend.walk(name)}
            check_exactly(found - {MANIFEST}, digests, uri)
            return fetch_into_place(
                private / ref.sha256,
                ref.sha256,
                uri,
                [*digests, MANIFEST],
                lambda file, path: backend.fetch(f"{name}/{file}", path),
            )

    def digests_of(self, ref: FolderRef) -> dict[str, str]:
        """The SHA-256 of each file of a folder by its name, from the verified manifest.

        Raises:
            IntegrityError: The store does not hold the folder, or its manifest was altered.
        """
        uri = self.uri_of(ref)
        with store_errors(uri):
            try:
                return read_manifest(self._backend.read(f"{_name_of(ref)}/{MANIFEST}"), ref.sha256, uri)
            except FileNotFoundError as error:
                todo = "Run again; the stage that made it re-runs."
                raise IntegrityError(uri, "no manifest", "a complete folder", todo) from error

    # -- pointers: the only mutable names in the store

    def write_pointer(self, name: str, ref: DatasetRef) -> None:
        """Makes ``name`` (such as ``benchmarks/support-desk``) point to a data set, replacing an earlier target."""
        self.write_record(name, ref)

    def read_pointer(self, name: str) -> DatasetRef | None:
        """The data set that ``name`` points to, or None."""
        return self.read_record(name, DatasetRef)

    def ensure_pointer(self, name: str, ref: DatasetRef) -> DatasetRef:
        """Makes ``name`` point to a data set unless it has a target that the store holds; returns the target."""

        def change(present: DatasetRef | None) -> DatasetRef:
            return present if present is not None and self.holds(present) else ref

        return self.update_record(name, DatasetRef, change)

    def write_record(self, name: str, record: Contract) -> None:
        """Writes a contract under ``name`` (such as ``models/<digest>``), replacing an earlier one.

        Only for a record without concurrent writers; see :meth:`update_record`.
        """
        path = f"pointers/{_checked(name)}.json"
        with store_errors(f"{self.uri}/{path}"):
            self._backend.put(path, _as_json(record))

    def read_record(self, name: str, kind: type[ContractT]) -> ContractT | None:
        """The contract under ``name``, or None.

        Raises:
            IntegrityError: The record is no such contract.
        """
        path = f"pointers/{_checked(name)}.json"
        with store_errors(f"{self.uri}/{path}"):
            found = self._backend.read_marked(path)
        return None if found is None else self._parsed(path, found[0], kind)

    def create_record(self, name: str, record: ContractT) -> ContractT:
        """Writes a contract under ``name`` unless one exists; returns the one that exists then."""
        return self.update_record(name, type(record), lambda present: record if present is None else present)

    def update_record(self, name: str, kind: type[ContractT], change: Callable[[ContractT | None], ContractT]) -> ContractT:
        """Changes the record under ``name`` by compare and set, which loses no concurrent change; returns the new record.

        Args:
            name: The name, such as ``reviews/support-desk``.
            kind: The class of the record.
            change: Makes the new record from the present one, or from None. It is called again after a concurrent change,
                so it must have no side effects.

        Raises:
            IntegrityError: The record is no such contract.
            StoreError: The store does not respond, or concurrent changes prevent every attempt.
        """
        path = f"pointers/{_checked(name)}.json"
        for attempt in range(_MAX_ATTEMPTS):
            with store_errors(f"{self.uri}/{path}"):
                found = self._backend.read_marked(path)
            present = None if found is None else self._parsed(path, found[0], kind)
            changed = change(present)
            if present is not None and changed == present:
                return present
            data = _as_json(changed)
            with store_errors(f"{self.uri}/{path}"):
                done = self._backend.create(path, data) if found is None else self._backend.swap(path, found[1], data)
            if done:
                return changed
            time.sleep(random.uniform(0, min(1.0, 0.005 * 2 ** min(attempt, 8))))
        raise StoreError(
            f"{self.uri}/{path}",
            f"a record that others changed {_MAX_ATTEMPTS} times meanwhile",
            "a record with fewer concurrent changes",
            "Run again when fewer runs are active.",
        )

    def _parsed(self, path: str, data: bytes, kind: type[ContractT]) -> ContractT:
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            # Without the cause, which would contain the record.
            raise IntegrityError(
                f"{self.uri}/{path}",
                f"a record that is no {kind.__name__}",
                "one that this release wrote",
                "Restore it from a backup, or remove it if nothing depends on it.",
            ) from None

    # -- readable copies: files under names for people

    def write_named(self, name: str, data: bytes) -> str:
        """Writes a file under a readable name (``dossiers/<run>/dossier.html``), replaced atomically; returns its URI."""
        with store_errors(f"{self.uri}/{name}"):
            self._backend.put(_checked(name), data)
        return f"{self.uri}/{name}"

    def keep_named(self, name: str, data: bytes) -> bytes:
        """Writes bytes under a name unless it is taken; returns the bytes that it has then."""
        with store_errors(f"{self.uri}/{name}"):
            return data if self._backend.create(_checked(name), data) else self._backend.read(name)

    def read_named(self, name: str) -> bytes | None:
        """The bytes under a readable name, or None. They have no hash, so training data are never read this way."""
        with store_errors(f"{self.uri}/{name}"):
            found = self._backend.read_marked(_checked(name))
        return None if found is None else found[0]

    def names_in(self, folder: str) -> list[str]:
        """The sorted names in a folder of the store; empty if the folder does not exist."""
        with store_errors(f"{self.uri}/{folder}"):
            return [name for name in self._backend.children(_checked(folder)) if not UNFINISHED.fullmatch(name)]

    # -- pruning

    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        """Name within the store, size in bytes and time of the last change of every file in a folder of it."""
        with store_errors(f"{self.uri}/{folder}"):
            yield from self._backend.walk(_checked(folder))

    def unfinished(self) -> Iterator[tuple[str, int, datetime]]:
        """The same for interrupted writes."""
        with store_errors(self.uri):
            yield from self._backend.unfinished()

    def remove(self, name: str) -> None:
        """Permanently removes one object of the store.

        Args:
            name: The full name of a data set (``objects/ab/<SHA-256>``, with its manifest), a file (``files/ab/<SHA-256>``,
                with any suffix), a folder, a training's work folder, or a name from :meth:`unfinished`.

        Raises:
            StoreError: It is no such name, or it may not be removed.
        """
        if not is_removable(name):
            raise StoreError(
                f"{self.uri}/{name}",
                "a name that the store does not write",
                "the full name of a data set, a file, a folder, a work folder or an unfinished write",
                "Remove it manually if it is not needed.",
            )
        folder, _, last = name.rpartition("/")
        with store_errors(f"{self.uri}/{name}"):
            if not name.startswith(("objects/", "files/")) or UNFINISHED.fullmatch(last):
                self._backend.remove(name)
                return
            for found in self._backend.children(folder):
                if thing_of(f"{folder}/{found}") == name:
                    self._backend.remove(f"{folder}/{found}")

    # -- forgetting

    def folders(self) -> list[str]:
        """The names of the folders and files at the root."""
        with store_errors(self.uri):
            return [name for name in self._backend.children("") if not UNFINISHED.fullmatch(name)]

    def forget_bytes(self, name: str, data: bytes, certificate: str) -> Tombstone:
        """Replaces the bytes of a data set or file for good; whatever refers to it can still read and verify it.

        Args:
            name: The full name of the file within the store, from :meth:`walk`.
            data: What is left of its bytes.
            certificate: Name of the record of why.

        Raises:
            StoreError: It is no data set or file of this store.
        """
        found = _STORED.match(name)
        if found is None or found.group(1) == "folders":
            raise StoreError(
                f"{self.uri}/{name}", "no data set and no file", "one whose bytes have a tombstone", "Remove it as a whole."
            )
        tombstone = Tombstone(sha256=found["sha256"], remaining_sha256=sha256_of(data), certificate=certificate)
        path = _tombstone_of(tombstone.sha256)
        with store_errors(f"{self.uri}/{name}"):
            # In this order, so that a crash between the two leaves an object that verifies.
            self._backend.put(path, _as_json(tombstone))
            self._backend.put(name, data)
        return tombstone

    def tombstone_of(self, sha256: str) -> Tombstone | None:
        """What is known of an object from which somebody was removed; None for any other."""
        path = _tombstone_of(sha256)
        with store_errors(f"{self.uri}/{path}"):
            found = self._backend.read_marked(path)
        return None if found is None else self._parsed(path, found[0], Tombstone)

    # -- whole objects

    def holds(self, ref: DatasetRef | FileRef | FolderRef) -> bool:
        """Whether the referenced object exists; its bytes are verified only when it is read."""
        name = f"{_name_of(ref)}/{MANIFEST}" if isinstance(ref, FolderRef) else _name_of(ref)
        with store_errors(self.uri_of(ref)):
            return self._backend.is_file(name)

    def uri_of(self, ref: DatasetRef | FileRef | FolderRef) -> str:
        """The location of the referenced object in this store, for people and external programs."""
        return f"{self.uri}/{_name_of(ref)}"

    def _keep(self, name: str, data: bytes) -> None:
        found = _STORED.match(name)
        if found is not None and self.tombstone_of(found["sha256"]) is not None:
            logger.warning("store: %s stays without what was forgotten in it", name)
            return
        with store_errors(f"{self.uri}/{name}"):
            self._backend.keep(name, data)

    def _get(self, ref: DatasetRef | FileRef) -> bytes:
        return self._read_verified(_name_of(ref), ref.sha256)

    def _read_verified(self, name: str, sha256: str) -> bytes:
        uri = f"{self.uri}/{name}"
        with store_errors(uri):
            try:
                data = self._backend.read(name)
            except FileNotFoundError as error:
                raise IntegrityError(
                    uri, "no file", "the file written by an earlier stage", "Run again; the stage that made it re-runs."
                ) from error
        if (digest := sha256_of(data)) != sha256:
            tombstone = self.tombstone_of(sha256)
            if tombstone is not None and tombstone.remaining_sha256 == digest:
                return data
            raise IntegrityError(
                uri,
                f"bytes with SHA-256 {digest[:12]}",
                sha256[:12],
                "Delete the file and run again to recreate it.",
            )
        return data


_RUN_STORE: ContextVar[Store] = ContextVar("run_store")


def open_store(root: str | Path) -> Store:
    """Opens the store under ``root`` as that of this run, in which its references are resolved.

    A process executes one run, so the store that was opened last counts; threads that Prefect starts for tasks inherit it.

    Raises:
        StoreError: See :class:`Store`.
        MissingDependencyError: See :class:`Store`.
    """
    store = Store(root)
    _RUN_STORE.set(store)
    return store


def run_store() -> Store:
    """The store of this run, as :func:`open_store` opened it.

    Raises:
        StoreError: No store was opened in this run.
    """
    store = _RUN_STORE.get(None)
    if store is None:
        raise StoreError(
            "this run", "no open store", "a flow that opens its store first", "Call open_store before its stages."
        )
    return store


def is_removable(name: str) -> bool:
    """Whether a name within a store is the full name of an object that pruning may remove."""
    if _STORED.fullmatch(name) or _WORK.fullmatch(name):
        return True
    *folders, last = name.split("/")
    return bool(UNFINISHED.fullmatch(last)) and folders[:1] != ["work"] and not {"", ".", ".."} & set(folders)


def thing_of(name: str) -> str | None:
    """The object that a file within a store belongs to, by its name for :meth:`Store.remove`; None for an unknown file.

    Args:
        name: A name from :meth:`Store.walk`.
    """
    if (found := _WORK.match(name)) is not None:
        return found.group() if name[found.end() : found.end() + 1] == "/" else None
    if (found := _STORED.match(name)) is None:
        return None
    rest = name[found.end() :]
    whole = {"objects": rest in (".parquet", ".json"), "folders": rest.startswith("/")}
    return found.group() if whole.get(found.group(1), _SUFFIX.fullmatch(rest) is not None) else None


def _name_of(ref: DatasetRef | FileRef | FolderRef) -> str:
    """The name within a store of a referenced object."""
    if isinstance(ref, DatasetRef):
        return f"objects/{ref.sha256[:2]}/{ref.sha256}.parquet"
    if isinstance(ref, FolderRef):
        return f"folders/{ref.sha256[:2]}/{ref.sha256}"
    return f"files/{ref.sha256[:2]}/{ref.sha256}{ref.suffix}"


def _tombstone_of(sha256: str) -> str:
    return f"tombstones/{sha256[:2]}/{sha256}.json"


def _checked(name: str) -> str:
    """A valid name within the store.

    Raises:
        StoreError: The name leads outside of the store.
    """
    if name.startswith("/") or not name or {"", ".", ".."} & set(name.split("/")):
        raise StoreError(
            f"name {name!r} in the store", "one that leads outside of it", "a name below its root", "Correct it."
        )
    return name


def _as_json(record: Contract) -> bytes:
    return record.model_dump_json(indent=2).encode()


def _lineage_in(schema: pa.Schema) -> dict[str, Any]:
    lineage: dict[str, Any] = json.loads((schema.metadata or {}).get(_LINEAGE_KEY, b"{}"))
    return lineage
