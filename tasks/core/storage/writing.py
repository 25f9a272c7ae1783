"""Local writes that a crash cannot tear: a unique temporary name, flushed to disk, then renamed or linked into place."""

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
"""The names that a write has before it is finished; a kill leaves them behind."""

_BLOCK = 1 << 20


def write_file_atomically(path: Path, data: bytes) -> None:
    """Writes a local file so that a reader sees the old bytes or the new ones, never a part.

    Raises:
        StoreError: The folder is read-only or the disk is full.
    """
    with store_errors(str(path)):
        replace_file(path, data)


def replace_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Puts ``data`` under a name, whatever was there; it is on the disk when this returns.

    Raises:
        OSError: What the operating system says.
    """
    with _unfinished_file(path, data, mode) as temporary:
        os.replace(temporary, path)
        sync_folder(path.parent)


def create_file(path: Path, data: bytes, mode: int = 0o600) -> bool:
    """Puts ``data`` under a name that is free; False, and nothing is changed, where it is taken.

    link(2) fails where the name exists, on a network filesystem too.

    Raises:
        OSError: What the operating system says.
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
    """A flushed file of another name beside ``path``, removed afterwards unless it was renamed."""
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
    """A name in a folder that nobody else uses, of the form that pruning knows."""
    return folder / f".writing-{secrets.token_hex(4)}"


def copy_file(source: Path, target: Path, *, follow_link: bool) -> str:
    """Copies a file, read-only and flushed; the SHA-256 of the very bytes that were written.

    Raises:
        OSError: What the operating system says.
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
    """Makes a folder and those above it, each on the disk before anything is put in it.

    Raises:
        OSError: What the operating system says.
    """
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flushes a folder's names to the disk: a renamed file is only then sure to keep its new name.

    Raises:
        OSError: What the operating system says.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        # A filesystem that writes names at once may not know how to flush a folder, and says so in this way.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock between all processes and threads; the system frees it when its holder dies.

    Args:
        path: The lock's file, which is made where it is missing and stays.

    Raises:
        OSError: What the operating system says.
    """
    make_folders(path.parent)
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
