"""Private temporary folders of this user, removed with the process that created them.

All are in ``perennial-<user id>`` in the machine's temporary folder (``TMPDIR``). Their names are predictable, and another
user may have created them; so a folder is used only if this user owns it, no other user has access, and it is no link. A
process holds a lock on each of its folders. The folders of a killed process have no lock, and the next process removes them.

Raw rows, and values found in them, are not written even there: see :func:`unnamed_file`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from tasks.core.errors import StoreError


@contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A new private folder within the block; removes the folders of killed processes first.

    Args:
        purpose: Prefix of its name.

    Raises:
        StoreError: The temporary folder cannot be written, or another user owns this user's folder in it.
    """
    root = private_folder("scratch")
    with _locked(root):
        _sweep(root)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=f"{purpose}-"))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep_scratch() -> None:
    """Removes the scratch folders of killed processes of this user.

    Raises:
        StoreError: As for :func:`scratch_folder`.
    """
    root = private_folder("scratch")
    with _locked(root):
        _sweep(root)


def private_folder(name: str) -> Path:
    """The permanent folder ``name`` in this user's temporary folder, created if absent.

    Raises:
        StoreError: It cannot be created, or other users have access to it.
    """
    try:
        root = Path(tempfile.gettempdir()) / f"perennial-{os.geteuid()}"
    except FileNotFoundError as error:
        raise StoreError(
            "the temporary folder", "no writable folder", "a writable one", "Set TMPDIR to a folder with room."
        ) from error
    return own_folder(own_folder(root, private=True) / name, private=True)


def own_folder(folder: Path, *, private: bool = False, close: bool = False) -> Path:
    """A folder of this user that no other user can write to.

    Args:
        folder: Created with its parents if absent.
        private: Whether other users must have no read access either.
        close: Whether to restrict the mode of an own folder that is open to others, instead of rejecting it: an
            orchestrator may open a volume to a group at every start. Only for a caller that verifies the folder's content.

    Raises:
        StoreError: It cannot be created, is a link, or other users own it or can write to it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        is_own = found.st_uid in (os.geteuid(), _own_id_on(folder.parent) if found.st_uid != os.geteuid() else -1)
        if close and is_own and stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077:
            folder.chmod(0o700)
            found = folder.lstat()
    except OSError as error:
        raise StoreError(
            str(folder), error.strerror or "an error", "a folder that can be made and written", "Check the disk and TMPDIR."
        ) from error
    open_bits = stat.S_IMODE(found.st_mode) & (0o077 if private else stat.S_IWOTH)
    if stat.S_ISLNK(found.st_mode):
        fault = "a link"
    elif not stat.S_ISDIR(found.st_mode):
        fault = "a file"
    elif not is_own:
        fault = f"a folder of user {found.st_uid}"
    elif open_bits:
        fault = f"a folder that others may {'use' if private else 'write to'} (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return folder
    raise StoreError(
        str(folder),
        f"{fault}, which other users may have written to",
        f"a folder of user {os.geteuid()} that {'is closed to' if private else 'cannot be written by'} others",
        "Find out who created it and remove it; or set TMPDIR (for a training `scratch_dir`, for a store's copies "
        "PERENNIAL_HOME) to another folder of yours.",
    )


def unnamed_file() -> IO[bytes]:
    """An unnamed file, for raw rows in transit to another process; the kernel frees it when its last user ends.

    Even ``kill -9`` leaves no file behind. On Linux it never has a name; elsewhere it is unlinked at once.
    """
    return tempfile.TemporaryFile()


def _sweep(root: Path) -> None:
    """Removes every unlocked folder; the caller locks ``root``, so that no folder is being created."""
    for folder in root.iterdir():
        try:
            lock = _lock(folder, wait=False)
        except (BlockingIOError, FileNotFoundError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path, *, wait: bool = True) -> int:
    """The descriptor of a lock on the folder, held until it is closed or the process ends."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = _lock(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def _own_id_on(folder: Path) -> int:
    """The owner of a file that this process creates there: a file server may map the administrator to another user."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid
