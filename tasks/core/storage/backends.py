"""The backends of a store: a folder, S3-compatible storage, or this process's memory, behind the same few operations.

Mutable names change only through :meth:`Backend.create` (put if absent) and :meth:`Backend.swap` (compare and set). A folder
implements them with link(2) and a lock, S3 with the headers If-None-Match and If-Match. Other storage is rejected: without
the two, runs would overwrite each other's records.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import fsspec
from typing_extensions import override

from tasks.core.storage.folders import MANIFEST, copy_into_place, manifest_of, remove_tree
from tasks.core.storage.writing import UNFINISHED, create_file, locked, replace_file, unfinished_name
from tasks.core.timestamps import ensure_utc


class Backend(Protocol):
    """The operations of a backend; names are relative to the store's root, and writes are atomic."""

    uri: str
    local_path: Path | None

    def read(self, name: str) -> bytes:
        """The bytes under a name.

        Raises:
            FileNotFoundError: The name does not exist.
            OSError: The backend does not respond.
        """

    def read_marked(self, name: str) -> tuple[bytes, Any] | None:
        """The bytes under a name with their mark for :meth:`swap`; None if the name does not exist.

        The mark is the bytes themselves, unless the backend provides another.
        """
        try:
            data = self.read(name)
        except FileNotFoundError:
            return None
        return data, data

    def is_file(self, name: str) -> bool:
        """Whether there is a file of this exact name."""

    def keep(self, name: str, data: bytes) -> None:
        """Writes bytes under a name that contains their hash; other bytes there are damaged and replaced."""

    def put(self, name: str, data: bytes) -> None:
        """Writes bytes under a name, replacing earlier ones."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes bytes under a free name; returns False without a change if it is taken."""

    def swap(self, name: str, mark: Any, data: bytes) -> bool:
        """Replaces the bytes with this mark; returns False without a change if they have changed."""

    def add_folder(self, name: str, folder: Path, digests: Mapping[str, str], *, follow_links: bool) -> None:
        """Copies a local folder's files under a name, the manifest last."""

    def children(self, folder: str) -> list[str]:
        """The names in a folder; empty if the folder does not exist."""

    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        """Name, size in bytes and time of the last change of every file in a folder."""

    def unfinished(self) -> Iterator[tuple[str, int, datetime]]:
        """The same for interrupted writes."""

    def remove(self, name: str) -> None:
        """Permanently removes a file, or a folder with its content."""


class FolderBackend(Backend):
    """A folder of this machine, or one mounted by several machines."""

    def __init__(self, root: Path) -> None:
        self.local_path: Path | None = root
        self.uri = f"file://{root}"
        self._root = root
        # One lock for the whole store, held for a read and a rename.
        self._lock = root / ".lock"

    @override
    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    @override
    def is_file(self, name: str) -> bool:
        return (self._root / name).is_file()

    @override
    def keep(self, name: str, data: bytes) -> None:
        path = self._root / name
        if path.is_file() and not path.is_symlink() and path.stat().st_size == len(data) and path.read_bytes() == data:
            # Pruning uses this time as that of the last use.
            os.utime(path)
            return
        replace_file(path, data, mode=0o400)

    @override
    def put(self, name: str, data: bytes) -> None:
        if name.startswith("pointers/"):
            # Serialized with swap.
            with locked(self._lock):
                replace_file(self._root / name, data)
            return
        replace_file(self._root / name, data)

    @override
    def create(self, name: str, data: bytes) -> bool:
        return create_file(self._root / name, data)

    @override
    def swap(self, name: str, mark: Any, data: bytes) -> bool:
        with locked(self._lock):
            if self.read_marked(name) != (mark, mark):
                return False
            replace_file(self._root / name, data)
            return True

    @override
    def add_folder(self, name: str, folder: Path, digests: Mapping[str, str], *, follow_links: bool) -> None:
        copy_into_place(folder, self._root / name, digests, self._lock, follow_links=follow_links)

    @override
    def children(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in os.scandir(self._root / folder))
        except FileNotFoundError:
            return []

    @override
    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        for place, _, names in os.walk(self._root / folder):
            for name in names:
                with suppress(FileNotFoundError):  # removed or renamed by another process
                    yield self._entry(Path(place, name))

    @override
    def unfinished(self) -> Iterator[tuple[str, int, datetime]]:
        for place, folders, names in os.walk(self._root):
            if Path(place) == self._root and "work" in folders:
                folders.remove("work")  # the content of a work folder is removed with it
            for name in filter(UNFINISHED.fullmatch, [*folders, *names]):
                with suppress(FileNotFoundError):
                    own, size, modified = self._entry(Path(place, name))
                    inside = list(self.walk(own))
                    total = sum(entry[1] for entry in inside) if name in folders else size
                    yield own, total, max([modified, *(entry[2] for entry in inside)])
            folders[:] = [name for name in folders if not UNFINISHED.fullmatch(name)]

    def _entry(self, path: Path) -> tuple[str, int, datetime]:
        found = path.lstat()
        return path.relative_to(self._root).as_posix(), found.st_size, datetime.fromtimestamp(found.st_mtime, UTC)

    @override
    def remove(self, name: str) -> None:
        path = self._root / name
        if path.is_dir() and not path.is_symlink() and not UNFINISHED.fullmatch(path.name):
            # Renamed first, so that a kill leaves no partial folder under this name.
            hidden = unfinished_name(path.parent)
            os.rename(path, hidden)
            path = hidden
        remove_tree(path)


class RemoteBackend(Backend):
    """The common operations of object storage through fsspec; it writes whole objects."""

    def __init__(self, root: str, **options: Any) -> None:
        self.local_path: Path | None = None
        self._fs, path = fsspec.core.url_to_fs(root, **options)
        self._root = path.rstrip("/")
        self.uri = str(self._fs.unstrip_protocol(self._root))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    @override
    def read(self, name: str) -> bytes:
        return bytes(self._fs.cat_file(self._path(name)))

    @override
    def is_file(self, name: str) -> bool:
        return bool(self._fs.isfile(self._path(name)))

    @override
    def keep(self, name: str, data: bytes) -> None:
        # Written even if it exists: a comparison would cost as much.
        self.put(name, data)

    @override
    def put(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    @override
    def add_folder(self, name: str, folder: Path, digests: Mapping[str, str], *, follow_links: bool) -> None:
        """Readers require the manifest, so files are invisible until it is written.

        Only the sizes of existing files are compared; :func:`tasks.core.storage.folders.verify_folder` finds other damage.
        """
        present = {found.removeprefix(f"{name}/"): size for found, size, _ in self.walk(name)}
        for file_name in digests:
            path = folder / file_name
            if present.get(file_name) != path.stat().st_size:
                self._fs.put_file(str(path), self._path(f"{name}/{file_name}"))
        self.create(f"{name}/{MANIFEST}", manifest_of(digests))

    def fetch(self, name: str, path: Path) -> None:
        """Writes the bytes under a name into a local file."""
        self._fs.get_file(self._path(name), str(path))

    @override
    def children(self, folder: str) -> list[str]:
        path = self._path(folder)
        if not self._fs.isdir(path):
            return []
        return sorted(str(found).rstrip("/").rsplit("/", 1)[-1] for found in self._fs.ls(path, detail=False))

    @override
    def walk(self, folder: str) -> Iterator[tuple[str, int, datetime]]:
        for found, info in self._fs.find(self._path(folder), detail=True).items():
            name = str(found)[len(self._root) :].lstrip("/")
            yield name, int(info.get("size") or 0), _changed_at(info)

    @override
    def unfinished(self) -> Iterator[tuple[str, int, datetime]]:
        """Empty: writes of objects are atomic."""
        return iter(())

    @override
    def remove(self, name: str) -> None:
        path = self._path(name)
        if self._fs.isfile(path):
            self._fs.rm_file(path)
            return
        manifest = f"{path}/{MANIFEST}"
        if self._fs.isfile(manifest):
            self._fs.rm_file(manifest)  # first, so that a kill leaves no seemingly complete folder
        if self._fs.isdir(path):
            self._fs.rm(path, recursive=True)


class MemoryBackend(RemoteBackend):
    """The memory of this process: for tests and experiments, since it ends with the process."""

    _lock = threading.Lock()

    @override
    def put(self, name: str, data: bytes) -> None:
        with self._lock:
            super().put(name, data)

    def fetch(self, name: str, path: Path) -> None:
        """Like :meth:`RemoteBackend.fetch`; fsspec's memory files share one position among concurrent readers."""
        path.write_bytes(self.read(name))

    @override
    def create(self, name: str, data: bytes) -> bool:
        with self._lock:
            if self.is_file(name):
                return False
            super().put(name, data)
            return True

    @override
    def swap(self, name: str, mark: Any, data: bytes) -> bool:
        with self._lock:
            if self.read_marked(name) != (mark, mark):
                return False
            super().put(name, data)
            return True


def _changed_at(info: dict[str, Any]) -> datetime:
    """The time in a file's listing; now if the filesystem has none, so that no file seems old."""
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(key)
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, datetime):
            return ensure_utc(value)
    return datetime.now(UTC)
