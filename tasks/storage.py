"""The only reader and writer of what a run leaves behind: content-addressed, atomic, verified on every read.

A store is a folder, local or on object storage (``file``, ``s3``, ``gs``: anything fsspec opens)::

    objects/ab/abcdef….parquet   data sets, and abcdef….json, the manifest for people
    files/ab/abcdef….html        single files
    folders/ab/abcdef…/          models and adapters, listed in their own MANIFEST.json
    pointers/benchmarks/x.json   names for data sets
    dossiers/<run>/dossier.html  readable copies for people; with the pointers the only files that are ever replaced

The name of a thing is the SHA-256 of its bytes, so writing it again is a no-op and a changed byte is found on reading.
References and pointers hold that name and no place. A run opens its store (:func:`open_store`), and every reference of the
run is resolved there, so that a store which was copied to another path or into a bucket serves all that refers to it.
A local write goes to a temporary name in the same folder, is flushed, then renamed; object stores put whole objects.
Local files and remote objects are read through the same calls.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.contracts import Contract, DatasetKind, DatasetRef, FileRef, FolderRef
from tasks.errors import IntegrityError, LineageError, StoreError
from tasks.moments import aware
from tasks.rows import SCHEMAS, rows_to_table

ContractT = TypeVar("ContractT", bound=Contract)

_LINEAGE_KEY = b"perennial.lineage"
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_MANIFEST = "MANIFEST.json"

MIXED = "mixed"
"""What a data set of several sources has passed: its rows descend from every one of its parents, not the first alone."""


def sha256_of(data: bytes) -> str:
    """The hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a local file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder by its relative name, sorted."""
    return {
        path.relative_to(folder).as_posix(): sha256_of_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces)."""
    return sha256_of(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


class Store:
    """A content-addressed store under one root.

    Args:
        root: A local path or an fsspec URL.

    Raises:
        StoreError: The store cannot be created or written.
    """

    def __init__(self, root: str | Path) -> None:
        self._fs, path = fsspec.core.url_to_fs(str(root))
        self._root = path.rstrip("/")
        self.is_local = "file" in _protocols(self._fs)

    @property
    def uri(self) -> str:
        """The root as a URL."""
        return str(self._fs.unstrip_protocol(self._root))

    @property
    def local_path(self) -> Path | None:
        """The root as a path on this machine, or None for object storage."""
        return Path(self._root) if self.is_local else None

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
            table: Rows; for the canonical kinds, with exactly the schema of :data:`tasks.rows.SCHEMAS`.
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
        self._put(f"objects/{sha256[:2]}/{sha256}.parquet", data)
        ref = DatasetRef(
            sha256=sha256,
            num_rows=table.num_rows,
            kind=kind,
            parents=tuple(lineage["parents"]),
            passed=tuple(lineage["passed"]),
        )
        self._put(f"objects/{sha256[:2]}/{sha256}.json", ref.model_dump_json(indent=2).encode())
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
        """Writes the rows that a stage refused (see :func:`tasks.reporting.refusal`); None when there are none."""
        return self.write_rows(refused, kind="quarantine", parents=parents, passed=passed) if refused else None

    def read_table(self, ref: DatasetRef, columns: list[str] | None = None) -> pa.Table:
        """Reads a data set whose bytes are first checked against its hash.

        Raises:
            IntegrityError: The file is gone, or its bytes or lineage are not what the reference says.
        """
        data = self._get(ref)
        table = pq.read_table(io.BytesIO(data), columns=columns)
        lineage = json.loads((table.schema.metadata or {}).get(_LINEAGE_KEY, b"{}"))
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
        """The data set with this hash, or None when this store does not hold it."""
        path = f"{self._root}/objects/{sha256[:2]}/{sha256}.json"
        if not self._fs.exists(path):
            return None
        return DatasetRef.model_validate_json(self._fs.cat_file(path))

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
        self._check_lineage_metadata(ref)
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
                self._check_lineage_metadata(link)
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

    def _check_lineage_metadata(self, ref: DatasetRef) -> None:
        self.read_table(ref, columns=[])

    # -- files and folders

    def write_bytes(self, data: bytes, suffix: str) -> FileRef:
        """Writes one file, named by its hash plus ``suffix`` (such as ``.html``)."""
        sha256 = sha256_of(data)
        ref = FileRef(sha256=sha256, size_bytes=len(data), suffix=suffix)
        self._put(_name_of(ref), data)
        return ref

    def read_bytes(self, ref: FileRef) -> bytes:
        """Reads a file whose bytes are checked against its hash.

        Raises:
            IntegrityError: The file is gone or altered.
        """
        return self._get(ref)

    def add_folder(self, folder: Path) -> FolderRef:
        """Copies a local folder into the store; its files keep their relative names.

        The manifest with every file's digest is written last, so a folder without one is a torn write and is replaced.
        """
        digests = sha256_of_files(folder)
        digests.pop(_MANIFEST, None)
        sha256 = sha256_of_json(digests)
        size_bytes = sum((folder / name).stat().st_size for name in digests)
        target = f"folders/{sha256[:2]}/{sha256}"
        with _store_errors(f"{self.uri}/{target}"):
            if not self._fs.exists(f"{self._root}/{target}/{_MANIFEST}"):
                for name in digests:
                    self._fs.makedirs(f"{self._root}/{target}/{name}".rsplit("/", 1)[0], exist_ok=True)
                    self._fs.put_file(str(folder / name), f"{self._root}/{target}/{name}")
                self._put(f"{target}/{_MANIFEST}", json.dumps(digests, indent=2, sort_keys=True).encode())
        return FolderRef(sha256=sha256, num_files=len(digests), size_bytes=size_bytes)

    def fetch_folder(self, ref: FolderRef, cache: Path | None = None) -> Path:
        """A local path that holds the folder: the store's own when it is local, else a verified copy under ``cache``.

        Raises:
            IntegrityError: A file is missing or altered.
        """
        path = f"{self._root}/{_name_of(ref)}"
        if self.is_local:
            local = Path(path)
        else:
            local = (cache or Path(tempfile.gettempdir()) / "perennial-folders") / ref.sha256
            if not (local / _MANIFEST).exists():
                partial = local.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                self._fs.get(path, str(partial), recursive=True)
                partial.rename(local)
        _verify_folder(local, ref, self.uri_of(ref))
        return local

    # -- pointers: the only names in the store that may come to mean something else

    def write_pointer(self, name: str, ref: DatasetRef) -> None:
        """Makes ``name`` (such as ``benchmarks/support-desk``) point to a data set, atomically."""
        self.write_record(name, ref)

    def read_pointer(self, name: str) -> DatasetRef | None:
        """The data set that ``name`` points to, or None."""
        return self.read_record(name, DatasetRef)

    def write_record(self, name: str, record: Contract) -> None:
        """Makes ``name`` (such as ``models/<digest>``) mean a contract, atomically."""
        self._put(f"pointers/{name}.json", record.model_dump_json(indent=2).encode(), replace=True)

    def read_record(self, name: str, kind: type[ContractT]) -> ContractT | None:
        """The contract that ``name`` means, or None."""
        path = f"{self._root}/pointers/{name}.json"
        if not self._fs.exists(path):
            return None
        return kind.model_validate_json(self._fs.cat_file(path))

    # -- readable copies: files under names that people look for

    def write_named(self, name: str, data: bytes) -> str:
        """Writes a file under a readable name (``dossiers/<run>/dossier.html``), replaced atomically; returns its URI."""
        return self._put(name, data, replace=True)

    def read_named(self, name: str) -> bytes | None:
        """The bytes under a readable name, or None. They carry no hash, so nothing that is trained on is read this way."""
        path = f"{self._root}/{name}"
        with _store_errors(f"{self.uri}/{name}"):
            return bytes(self._fs.cat_file(path)) if self._fs.isfile(path) else None

    def names_in(self, folder: str) -> list[str]:
        """The sorted names of what lies in a folder of the store; empty when there is no such folder."""
        path = f"{self._root}/{folder}"
        if not self._fs.isdir(path):
            return []
        return sorted(str(found).rstrip("/").rsplit("/", 1)[-1] for found in self._fs.ls(path, detail=False))

    # -- making room

    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        """Name within the store, size in bytes and time of the last change of every file in a folder of it."""
        path = f"{self._root}/{folder}"
        if not self._fs.isdir(path):
            return
        for found, info in self._fs.find(path, detail=True).items():
            name = str(found)[len(self._root) :].lstrip("/")
            yield name, int(info.get("size") or 0), _changed_at(info)

    def remove(self, name: str) -> None:
        """Removes what :meth:`walk` named, a data set with its manifest (without suffix), or a folder; gone is gone.

        Raises:
            StoreError: It may not be removed.
        """
        path = f"{self._root}/{name}"
        with _store_errors(f"{self.uri}/{name}"):
            if self._fs.isdir(path):
                self._fs.rm(path, recursive=True)
                return
            for found in self._fs.glob(f"{path}*"):
                self._fs.rm_file(found)

    # -- whole objects

    def holds(self, ref: DatasetRef | FileRef | FolderRef) -> bool:
        """Whether the referenced thing still exists (its bytes are checked on reading)."""
        path = f"{self._root}/{_name_of(ref)}"
        return bool(self._fs.exists(f"{path}/{_MANIFEST}" if isinstance(ref, FolderRef) else path))

    def _put(self, name: str, data: bytes, *, replace: bool = False) -> str:
        path = f"{self._root}/{name}"
        with _store_errors(f"{self.uri}/{name}"):
            if replace or not self._fs.exists(path) or self._fs.size(path) != len(data):
                if self.is_local:
                    _write_atomically(Path(path), data)
                else:
                    self._fs.pipe_file(path, data)
        return str(self._fs.unstrip_protocol(path))

    def uri_of(self, ref: DatasetRef | FileRef | FolderRef) -> str:
        """Where the referenced thing lies in this store, for a person or a program outside; a reference never holds it."""
        return f"{self.uri}/{_name_of(ref)}"

    def _get(self, ref: DatasetRef | FileRef) -> bytes:
        uri, path = self.uri_of(ref), f"{self._root}/{_name_of(ref)}"
        with _store_errors(uri):
            try:
                data: bytes = self._fs.cat_file(path)
            except FileNotFoundError as error:
                raise IntegrityError(
                    uri, "no file", "the file written by an earlier stage", "Run again; the stage that made it re-runs."
                ) from error
        if sha256_of(data) != ref.sha256:
            raise IntegrityError(
                uri,
                f"bytes with SHA-256 {sha256_of(data)[:12]}",
                ref.sha256[:12],
                "Delete the file and run again to make it anew.",
            )
        return data


_RUN_STORE: ContextVar[Store] = ContextVar("run_store")


def open_store(root: str | Path) -> Store:
    """The store under ``root``, which from here on is this run's own: the one that its references are resolved in.

    A process works for one run, so the last store opened counts; threads that Prefect starts for tasks see it too.

    Raises:
        StoreError: See :class:`Store`.
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


def _name_of(ref: DatasetRef | FileRef | FolderRef) -> str:
    """The name within a store of what a reference stands for."""
    if isinstance(ref, DatasetRef):
        return f"objects/{ref.sha256[:2]}/{ref.sha256}.parquet"
    if isinstance(ref, FolderRef):
        return f"folders/{ref.sha256[:2]}/{ref.sha256}"
    return f"files/{ref.sha256[:2]}/{ref.sha256}{ref.suffix}"


def write_file_atomically(path: Path, data: bytes) -> None:
    """Writes a local file so that a reader sees the old bytes or the new ones, never a part.

    Raises:
        StoreError: The folder is read-only or the disk is full.
    """
    with _store_errors(str(path)):
        _write_atomically(path, data)


def _write_atomically(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _store_errors(where: str) -> Iterator[None]:
    """Turns the operating system's refusals into one clear :class:`StoreError`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(
                where, "no space left", "room to write", "Free disk space, then run again; finished stages are kept."
            ) from error
        if isinstance(error, PermissionError) or error.errno == errno.EROFS:
            raise StoreError(
                where,
                "a read-only location",
                "a writable store",
                "Check the folder's owner and mount, or set `store` elsewhere.",
            ) from error
        if isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
            raise StoreError(
                where,
                "a file where a folder must be (or the reverse)",
                "a folder of its own",
                "Set `store` to another place.",
            ) from error
        raise StoreError(
            where,
            error.strerror or type(error).__name__,
            "a store that answers",
            "Check its folder, mount or network, then run again; finished stages are kept.",
        ) from error


def _verify_folder(local: Path, ref: FolderRef, uri: str) -> None:
    manifest = local / _MANIFEST
    if not manifest.exists():
        raise IntegrityError(uri, "no manifest", "a complete folder", "Run again; the stage that made it re-runs.")
    digests = json.loads(manifest.read_bytes())
    if sha256_of_json(digests) != ref.sha256:
        raise IntegrityError(uri, "an altered manifest", ref.sha256[:12], "Delete the folder and run again.")
    for name, digest in digests.items():
        path = local / name
        if not path.is_file() or sha256_of_file(path) != digest:
            raise IntegrityError(
                f"{uri}/{name}", "a missing or altered file", digest[:12], "Delete the folder and run again."
            )


def digests_in(text: str) -> set[str]:
    """Every SHA-256 that stands in a text."""
    return set(_DIGEST.findall(text))


def _changed_at(info: dict[str, Any]) -> datetime:
    """The time in a file's listing; the present where a filesystem tells none, so that nothing looks old."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return aware(value)
    return datetime.now(UTC)


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)
