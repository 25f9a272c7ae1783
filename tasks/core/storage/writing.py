"""Atomic local writes: to a unique temporary name, flushed to disk, then renamed or linked."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tasks.core.storage.failures import store_errors

UNFINISHED = re.compile(r"\.writing-[a-z0-9_]{8}")
"""The temporary names of unfinished writes; a kill leaves them behind."""

_BLOCK = 1 << 20


def write_file_atomically(path: Path, data: bytes) -> None:
    """Writes a local file atomically: a reader sees the old bytes or the new ones.

    Raises:
        StoreError: The folder is read-only or the disk is full.
    """
    with store_errors(str(path)):
        replace_file(path, data)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes ``data`` under a name, replacing earlier bytes, and flushes it to disk.

    Raises:
        OSError: The operating system reports an error.
    """
    with _unfinished_file(path, data, mode) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def create_file(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Writes ``data`` under a free name; returns False without a change if it is taken.

    link(2) fails if the name exists, also on a network filesystem.

    Raises:
        OSError: The operating system reports an error.
    """
    with _unfinished_file(path, data, mode) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True


@contextmanager
def _unfinished_file(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A flushed file with a temporary name beside ``path``, removed afterwards unless it was renamed."""
    make_folders(path.parent)
    temporary = unfinished_name(path.parent)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def unfinished_name(folder: Path) -> Path:
    """A unique temporary name in a folder, in the form that pruning recognizes."""
    return folder / f".writing-{secrets.token_hex(4)}"


def copy_file(source: Path, target: Path, *, follow_link: bool) -> str:
    """Copies a file, read-only and flushed; returns the SHA-256 of the written bytes.

    Raises:
        OSError: The operating system reports an error.
    """
    digest = hashlib.sha256()
    flags = os.O_RDONLY | (0 if follow_link else os.O_NOFOLLOW)
    with os.fdopen(os.open(source, flags), "rb") as read, target.open("xb") as written:
        while block := read.read(_BLOCK):
            digest.update(block)
            written.write(block)
        written.flush()
        os.fchmod(written.fileno(), os.fstat(written.fileno()).st_mode & 0o444)
        os.fsync(written.fileno())
    return digest.hexdigest()


def make_folders(folder: Path) -> None:
    """Creates a folder and its parents, each flushed to disk before its content.

    Raises:
        OSError: The operating system reports an error.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk, which makes a rename durable.

    Raises:
        OSError: The operating system reports an error.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # A filesystem that writes entries synchronously may not support this, and reports it in this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock among all processes and threads; the system releases it when its holder ends.

    Args:
        path: The lock file, created if absent and never removed.

    Raises:
        OSError: The operating system reports an error.
    """
    make_folders(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
