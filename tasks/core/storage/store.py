"""The only reader and writer of what a run leaves behind: content-addressed, atomic, verified on every read.

A store is a folder, local or in S3-compatible storage::

    objects/ab/abcdef….parquet   data sets, and abcdef….json, the manifest for people, which nothing reads
    files/ab/abcdef….html        single files
    folders/ab/abcdef…/          models and adapters, listed in their own MANIFEST.json
    pointers/benchmarks/x.json   names for data sets and records
    dossiers/<run>/dossier.html  readable copies for people; with the pointers the only files that are ever replaced

The name of a thing is the SHA-256 of its bytes, so writing it again is a no-op and a changed byte is found on reading.
A local write goes to a unique name in the same folder, is flushed, then renamed; object stores put whole objects, and the
manifest of a folder last. References and pointers hold a name and no place: a run opens its store (:func:`open_store`) and
every reference of the run is resolved there, so that a copied store serves all that refers to it. A pointer is changed on
condition that it still is what the change was worked out from (:meth:`Store.update_record`), so that of several runs none
erases what another has written.
"""

from __future__ import annotations

import io
import json
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
from tasks.contracts.references import DatasetRef, FileRef, FolderRef
from tasks.core.errors import IntegrityError, LineageError, StoreError
from tasks.core.rows import SCHEMAS, rows_to_table
from tasks.core.scratch import own_folder
from tasks.core.storage.backends import RemoteBackend, open_backend
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
from tasks.core.storage.writing import UNFINISHED

ContractT = TypeVar("ContractT", bound=Contract)

_LINEAGE_KEY = b"perennial.lineage"
_MAX_ATTEMPTS = 200
_STORED = re.compile(r"(objects|files|folders)/(?P<shard>[0-9a-f]{2})/(?P<sha256>(?P=shard)[0-9a-f]{62})")
_WORK = re.compile(r"work/((sft|dpo|kto|grpo)-[0-9a-f]{1,64}|merge-[a-z0-9_]{8})")
_SUFFIX = re.compile(r"(\.[a-z0-9]+)*")

MIXED = "mixed"
"""What a data set of several sources has passed: its rows descend from every one of its parents, not the first alone."""


class Store:
    """A content-addressed store under one root.

    Args:
        root: A local path, or a URL (``file://``, ``s3://``).

    Raises:
        StoreError: The store is of a kind in which runs would erase each other's records.
        MissingDependencyError: Its kind needs a package that is not installed.
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
            kind: What the rows are.
            parents: The data sets this one was made from (the first is the one it descends from, row by row), or the
                SHA-256 of a raw source.
            passed: Every gate that these rows went through, oldest first.
        """
        if kind in SCHEMAS and table.schema.names != SCHEMAS[kind].names:
            raise AssertionError(f"{kind} rows have columns {table.schema.names}, not {SCHEMAS[kind].names}")
        lineage = {
            "kind": kind,
            "parents": [parent if isinstance(parent, str) else parent.sha256 for parent in parents],
            "passed": list(passed),
        }
        # In one piece, because the pages of a Parquet file, and so its hash, follow the pieces that a table came in.
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

    def write_refused(
        self, refused: list[dict[str, Any]], *, parents: Iterable[DatasetRef | str], passed: Iterable[str] = ()
    ) -> DatasetRef | None:
        """Writes the rows that a stage refused (see :func:`tasks.core.quarantine.refusal`); None when there are none."""
        return self.write_rows(refused, kind="quarantine", parents=parents, passed=passed) if refused else None

    def read_table(self, ref: DatasetRef, columns: list[str] | None = None) -> pa.Table:
        """Reads a data set whose bytes are first checked against its hash.

        Raises:
            IntegrityError: The file is gone, or its bytes or lineage are not what the reference says.
        """
        table = pq.read_table(io.BytesIO(self._get(ref)), columns=columns)
        lineage = _lineage_in(table.schema)
        told = {"kind": ref.kind, "parents": list(ref.parents), "passed": list(ref.passed)}
        if lineage != told:
            raise IntegrityError(
                self.uri_of(ref), f"lineage {lineage}", f"{told}", "The reference was altered; run the stage again."
            )
        return table

    def read_rows(self, ref: DatasetRef) -> list[dict[str, Any]]:
        """The rows of a data set as dictionaries; see :meth:`read_table`."""
        rows: list[dict[str, Any]] = self.read_table(ref).to_pylist()
        return rows

    def find_dataset(self, sha256: str) -> DatasetRef | None:
        """The data set with this hash, or None when this store does not hold it.

        All that the reference says is read from the bytes that the hash is of, never from the manifest beside them.

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
        """Checks that a data set descends from its snapshots, from each of them, and went through the named gates.

        The chain is walked along first parents, and where data sets were mixed along every parent; each link is read back
        from its own hashed file, so that neither a stale path nor an edited reference passes.

        Args:
            ref: The data set about to be trained on.
            descends_from: SHA-256 of the snapshot that triggered the run, or of each of several that were mixed.
            passed: The gates it must have gone through, and so must every part of a mixture.

        Raises:
            LineageError: The chain is broken, leads elsewhere, or misses a gate.
        """
        wanted = {descends_from} if isinstance(descends_from, str) else set(descends_from)
        passed = tuple(passed)
        self._check_gates(ref, passed)
        self.read_table(ref, columns=[])
        reached: set[str] = set()
        chains: list[tuple[DatasetRef, ...]] = [(ref,)]
        while chains:
            chain = chains.pop()
            if chain[-1].sha256 in wanted:
                reached.add(chain[-1].sha256)
                continue
            is_mixed = MIXED in chain[-1].passed
            parents = chain[-1].parents if is_mixed else chain[-1].parents[:1]
            links = [self.find_dataset(parent) for parent in parents]
            for link in links or [None]:
                if link is None:
                    raise self._leads_elsewhere(chain, wanted)
                if is_mixed:
                    self._check_gates(link, passed)
                chains.append((*chain, link))
        if reached != wanted:
            raise self._leads_elsewhere((ref,), wanted - reached)

    @staticmethod
    def _leads_elsewhere(chain: tuple[DatasetRef, ...], wanted: set[str]) -> LineageError:
        return LineageError(
            f"data set {chain[0].sha256[:12]}",
            f"a chain that ends at {' <- '.join(link.sha256[:12] for link in chain)}",
            f"a descendant of snapshot {', '.join(sorted(sha256[:12] for sha256 in wanted))}",
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
        """Writes one file, named by its hash plus ``suffix`` (such as ``.html``)."""
        ref = FileRef(sha256=sha256_of(data), size_bytes=len(data), suffix=suffix)
        self._keep(_name_of(ref), data)
        return ref

    def read_bytes(self, ref: FileRef) -> bytes:
        """Reads a file whose bytes are checked against its hash.

        Raises:
            IntegrityError: The file is gone or altered.
        """
        return self._get(ref)

    def add_folder(self, folder: Path, *, follow_links: bool = False) -> FolderRef:
        """Copies a local folder into the store; its files keep their relative names.

        The files go to a unique name that is renamed at the end (in a bucket: the manifest is put last), so a folder is
        there whole or not at all, and what an earlier kill or a damaged disk left is replaced.

        Args:
            folder: Regular files alone, in real folders.
            follow_links: Links to files count as those files: for a folder of links that the caller has made.

        Raises:
            IntegrityError: It holds something else, which is named, or changes while it is read.
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
        """A local path that holds exactly the folder: the store's own when it is local, else a verified copy.

        Args:
            ref: The folder.
            cache: Where copies are kept, a folder that only this user can write to; without one in the embedded folder.

        Raises:
            IntegrityError: A file is missing, altered, or one too many, or a link; it is named.
            StoreError: The cache is not this user's alone, or the store does not answer.
        """
        name, uri = _name_of(ref), self.uri_of(ref)
        if self.local_path is not None:
            with store_errors(uri):
                verify_folder(self.local_path / name, ref.sha256, uri)
            return self.local_path / name
        assert isinstance(self._backend, RemoteBackend)
        backend, digests = self._backend, self.digests_of(ref)
        copies = cache or Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute() / "folders"
        # What others have put there until it is closed is not used, see fetch_into_place.
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
        """The SHA-256 of each file of a folder by its name, from the manifest that the folder's hash is of.

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

    # -- pointers: the only names in the store that may come to mean something else

    def write_pointer(self, name: str, ref: DatasetRef) -> None:
        """Makes ``name`` (such as ``benchmarks/support-desk``) point to a data set, whatever it pointed to before."""
        self.write_record(name, ref)

    def read_pointer(self, name: str) -> DatasetRef | None:
        """The data set that ``name`` points to, or None."""
        return self.read_record(name, DatasetRef)

    def settle_pointer(self, name: str, ref: DatasetRef) -> DatasetRef:
        """The data set that ``name`` points to from now on, for every run: the first one, while the store holds it."""
        return self.update_record(name, DatasetRef, lambda known: known if known is not None and self.holds(known) else ref)

    def write_record(self, name: str, record: Contract) -> None:
        """Makes ``name`` (such as ``models/<digest>``) mean a contract, whatever it meant before.

        Only for what nobody else can have changed meanwhile; see :meth:`update_record`.
        """
        path = f"pointers/{_checked(name)}.json"
        with store_errors(f"{self.uri}/{path}"):
            self._backend.put(path, _as_json(record))

    def read_record(self, name: str, kind: type[ContractT]) -> ContractT | None:
        """The contract that ``name`` means, or None.

        Raises:
            IntegrityError: What stands there is no such contract.
        """
        path = f"pointers/{_checked(name)}.json"
        with store_errors(f"{self.uri}/{path}"):
            found = self._backend.read_marked(path)
        return None if found is None else self._parsed(path, found[0], kind)

    def create_record(self, name: str, record: ContractT) -> ContractT:
        """The contract that ``name`` means from now on: this one where it meant none, else the one that came first."""
        return self.update_record(name, type(record), lambda known: record if known is None else known)

    def update_record(self, name: str, kind: type[ContractT], change: Callable[[ContractT | None], ContractT]) -> ContractT:
        """What ``name`` means after a change, in which nothing that others write meanwhile is lost.

        Args:
            name: Such as ``reviews/support-desk``.
            kind: What it means.
            change: Makes the new record out of the present one, None where there is none. It is called again whenever
                somebody else was quicker, so it works out and writes nothing that depends on how often.

        Raises:
            IntegrityError: What stands there is no such contract.
            StoreError: The store does not answer, or the record never came to rest.
        """
        path = f"pointers/{_checked(name)}.json"
        for attempt in range(_MAX_ATTEMPTS):
            with store_errors(f"{self.uri}/{path}"):
                found = self._backend.read_marked(path)
            known = None if found is None else self._parsed(path, found[0], kind)
            changed = change(known)
            if known is not None and changed == known:
                return known
            data = _as_json(changed)
            with store_errors(f"{self.uri}/{path}"):
                done = self._backend.create(path, data) if found is None else self._backend.swap(path, found[1], data)
            if done:
                return changed
            time.sleep(random.uniform(0, min(1.0, 0.005 * 2 ** min(attempt, 8))))
        raise StoreError(
            f"{self.uri}/{path}",
            f"a record that others changed {_MAX_ATTEMPTS} times meanwhile",
            "a moment of rest",
            "Run again when fewer runs are at work.",
        )

    def _parsed(self, path: str, data: bytes, kind: type[ContractT]) -> ContractT:
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            # Without the cause: it would repeat what stands there.
            raise IntegrityError(
                f"{self.uri}/{path}",
                f"a record that is no {kind.__name__}",
                "one that this release wrote",
                "Restore it from a backup, or remove it if nothing depends on it.",
            ) from None

    # -- readable copies: files under names that people look for

    def write_named(self, name: str, data: bytes) -> str:
        """Writes a file under a readable name (``dossiers/<run>/dossier.html``), replaced atomically; returns its URI."""
        with store_errors(f"{self.uri}/{name}"):
            self._backend.put(_checked(name), data)
        return f"{self.uri}/{name}"

    def keep_named(self, name: str, data: bytes) -> bytes:
        """The bytes that a name has from now on: these where it was free, else those that came first."""
        with store_errors(f"{self.uri}/{name}"):
            return data if self._backend.create(_checked(name), data) else self._backend.read(name)

    def read_named(self, name: str) -> bytes | None:
        """The bytes under a readable name, or None. They carry no hash, so nothing that is trained on is read this way."""
        with store_errors(f"{self.uri}/{name}"):
            found = self._backend.read_marked(_checked(name))
        return None if found is None else found[0]

    def names_in(self, folder: str) -> list[str]:
        """The sorted names of what lies in a folder of the store; empty when there is no such folder."""
        with store_errors(f"{self.uri}/{folder}"):
            return [name for name in self._backend.children(_checked(folder)) if not UNFINISHED.fullmatch(name)]

    # -- making room

    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        """Name within the store, size in bytes and time of the last change of every file in a folder of it."""
        with store_errors(f"{self.uri}/{folder}"):
            yield from self._backend.walk(_checked(folder))

    def unfinished(self) -> Iterator[tuple[str, int, datetime]]:
        """The like for what kills left of writes."""
        with store_errors(self.uri):
            yield from self._backend.unfinished()

    def remove(self, name: str) -> None:
        """Removes one thing of the store; gone is gone.

        Args:
            name: In full: a data set (``objects/ab/<SHA-256>``, its manifest goes with it), a file (``files/ab/<SHA-256>``,
                under whatever endings), a folder, a training's work folder, or what :meth:`unfinished` named.

        Raises:
            StoreError: It is no such name, so that nothing else can go by mistake; or it may not be removed.
        """
        if not is_removable(name):
            raise StoreError(
                f"{self.uri}/{name}",
                "a name that the store does not write",
                "the full name of a data set, a file, a folder, a work folder or an unfinished write",
                "Remove it by hand if it is to go.",
            )
        folder, _, last = name.rpartition("/")
        with store_errors(f"{self.uri}/{name}"):
            if not name.startswith(("objects/", "files/")) or UNFINISHED.fullmatch(last):
                self._backend.remove(name)
                return
            for found in self._backend.children(folder):
                if thing_of(f"{folder}/{found}") == name:
                    self._backend.remove(f"{folder}/{found}")

    # -- whole objects

    def holds(self, ref: DatasetRef | FileRef | FolderRef) -> bool:
        """Whether the referenced thing still exists (its bytes are checked on reading)."""
        name = f"{_name_of(ref)}/{MANIFEST}" if isinstance(ref, FolderRef) else _name_of(ref)
        with store_errors(self.uri_of(ref)):
            return self._backend.is_file(name)

    def uri_of(self, ref: DatasetRef | FileRef | FolderRef) -> str:
        """Where the referenced thing lies in this store, for a person or a program outside; a reference never holds it."""
        return f"{self.uri}/{_name_of(ref)}"

    def _keep(self, name: str, data: bytes) -> None:
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
        if sha256_of(data) != sha256:
            raise IntegrityError(
                uri,
                f"bytes with SHA-256 {sha256_of(data)[:12]}",
                sha256[:12],
                "Delete the file and run again to make it anew.",
            )
        return data


_RUN_STORE: ContextVar[Store] = ContextVar("run_store")


def open_store(root: str | Path) -> Store:
    """The store under ``root``, which from here on is this run's own: the one that its references are resolved in.

    A process works for one run, so the last store opened counts; threads that Prefect starts for tasks see it too.

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
    """Whether a name within a store is, in full, one that the store itself gives to what pruning may remove."""
    if _STORED.fullmatch(name) or _WORK.fullmatch(name):
        return True
    *folders, last = name.split("/")
    return bool(UNFINISHED.fullmatch(last)) and folders[:1] != ["work"] and not {"", ".", ".."} & set(folders)


def thing_of(name: str) -> str | None:
    """What a file within a store belongs to, by the name that :meth:`Store.remove` knows; None where the store wrote none.

    Args:
        name: As :meth:`Store.walk` tells it.
    """
    if (found := _WORK.match(name)) is not None:
        return found.group() if name[found.end() : found.end() + 1] == "/" else None
    if (found := _STORED.match(name)) is None:
        return None
    rest = name[found.end() :]
    whole = {"objects": rest in (".parquet", ".json"), "folders": rest.startswith("/")}
    return found.group() if whole.get(found.group(1), _SUFFIX.fullmatch(rest) is not None) else None


def _name_of(ref: DatasetRef | FileRef | FolderRef) -> str:
    """The name within a store of what a reference stands for."""
    if isinstance(ref, DatasetRef):
        return f"objects/{ref.sha256[:2]}/{ref.sha256}.parquet"
    if isinstance(ref, FolderRef):
        return f"folders/{ref.sha256[:2]}/{ref.sha256}"
    return f"files/{ref.sha256[:2]}/{ref.sha256}{ref.suffix}"


def _checked(name: str) -> str:
    """A name within the store.

    Raises:
        StoreError: It leads out of it.
    """
    if name.startswith("/") or not name or {"", ".", ".."} & set(name.split("/")):
        raise StoreError(f"name {name!r} in the store", "one that leads out of it", "a name below its root", "Correct it.")
    return name


def _as_json(record: Contract) -> bytes:
    return record.model_dump_json(indent=2).encode()


def _lineage_in(schema: pa.Schema) -> dict[str, Any]:
    lineage: dict[str, Any] = json.loads((schema.metadata or {}).get(_LINEAGE_KEY, b"{}"))
    return lineage
