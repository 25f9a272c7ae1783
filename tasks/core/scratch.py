"""Folders for what must not stay: this user's alone, and gone with the process that made them.

All of them lie in ``perennial-<user id>`` in the machine's temporary folder (``TMPDIR``). A name there can be foreseen, and
whoever may write to the folder above may have taken it; so a folder is used only where it is this user's own, open to
nobody else, and no link. A process holds a lock on each folder that it works in. What a killed one left is without a lock,
and whoever starts next removes it.

Rows as they came, and values that were found in them, are not put even there: see :func:`unnamed_file`.
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
    """A new private folder for the length of the block, after what killed processes left was removed.

    Args:
        purpose: How its name begins.

    Raises:
        StoreError: The temporary folder cannot be written, or another user has taken this user's place in it.
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
    """Removes what killed processes of this user left in their scratch folders.

    Raises:
        StoreError: As for :func:`scratch_folder`.
    """
    root = private_folder("scratch")
    with _locked(root):
        _sweep(root)


def private_folder(name: str) -> Path:
    """The folder ``name`` among this user's temporary ones, made where it is not there yet; it stays.

    Raises:
        StoreError: It cannot be made, or is not this user's alone.
    """
    try:
        root = Path(tempfile.gettempdir()) / f"perennial-{os.geteuid()}"
    except FileNotFoundError as error:
        raise StoreError(
            "the temporary folder", "none that can be written", "a writable one", "Set TMPDIR to a folder with room."
        ) from error
    return own_folder(own_folder(root, private=True) / name, private=True)


def own_folder(folder: Path, *, private: bool = False, close: bool = False) -> Path:
    """A folder that this user made and that nobody else could have put something into.

    Args:
        folder: Made with its parents where it is not there.
        private: Whether others may not even read it.
        close: Whether one of this user's own that is open to others is closed, and not refused: an orchestrator may open a
            volume to a group at every start. Only for a caller that uses nothing in it unchecked.

    Raises:
        StoreError: It cannot be made; or it is a link, another user's, or open to others, who may have filled it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        mine = found.st_uid in (os.geteuid(), _own_id_on(folder.parent) if found.st_uid != os.geteuid() else -1)
        if close and mine and stat.S_ISDIR(found.st_mode) and found.st_mode & 0o077:
            folder.chmod(0o700)
            found = folder.lstat()
    except OSError as error:
        raise StoreError(
            str(folder), error.strerror or "an error", "a folder that can be made and written", "Check the disk and TMPDIR."
        ) from error
    wrong = stat.S_IMODE(found.st_mode) & (0o077 if private else stat.S_IWOTH)
    if stat.S_ISLNK(found.st_mode):
        fault = "a link"
    elif not stat.S_ISDIR(found.st_mode):
        fault = "a file"
    elif not mine:
        fault = f"a folder of user {found.st_uid}"
    elif wrong:
        fault = f"a folder that others may {'use' if private else 'write to'} (mode {stat.S_IMODE(found.st_mode):o})"
    else:
        return folder
    raise StoreError(
        str(folder),
        f"{fault}, which somebody else may have filled",
        f"a folder of user {os.geteuid()} that {'is closed to' if private else 'cannot be written by'} others",
        "Find out who made it and remove it; or set TMPDIR (for a training `scratch_dir`, for a store's copies "
        "PERENNIAL_HOME) to a folder of your own.",
    )


def unnamed_file() -> IO[bytes]:
    """A file without a name, for raw rows on their way to another process; the kernel frees it when its last user ends.

    Not even ``kill -9`` leaves anything to be found. On Linux it never has a name; elsewhere it loses it at once.
    """
    return tempfile.TemporaryFile()


def _sweep(root: Path) -> None:
    """Removes every folder that nobody holds; the caller holds ``root``, so none of them is just being made."""
    for folder in root.iterdir():
        try:
            lock = _lock(folder, wait=False)
        except (BlockingIOError, FileNotFoundError):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path, *, wait: bool = True) -> int:
    """The descriptor that holds the folder; closing it, or dying, lets go."""
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
    """The user id that a file of this process gets there: a file server may give the administrator's files another one."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid
