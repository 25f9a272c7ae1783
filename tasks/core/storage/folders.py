"""Stored folders contain exactly the regular files of their manifest.

A folder's hash covers its files' digests by name. Any other file would be loaded unverified with the folder (a chat
template, an adapter's settings), and a link leads outside of the verified files, so both are rejected by name.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import stat
import time
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from tasks.core.errors import IntegrityError
from tasks.core.storage.digests import sha256_of_file, sha256_of_json
from tasks.core.storage.writing import copy_file, locked, make_folders, replace_file, sync_folder, unfinished_name

logger = logging.getLogger(__name__)

MANIFEST = "MANIFEST.json"

_UNTRUE = "a folder of regular files, as it was stored"
_MAKE_ANEW = "Delete the folder and run again; the stage that made it re-runs."
_PARTIAL = re.compile(r"\.fetching-[0-9a-f]{32}")
_STALE_SECONDS = 86_400


def manifest_of(digests: Mapping[str, str]) -> bytes:
    """The stored form of a manifest."""
    return json.dumps(dict(digests), indent=2, sort_keys=True).encode()


def digest_folder(folder: Path, *, follow_links: bool = False) -> dict[str, str]:
    """The digest of every file of a local folder to be stored, by relative name.

    A manifest that matches the folder is skipped: the folder was fetched from a store.

    Args:
        folder: The folder.
        follow_links: Whether a link to a file counts as that file, for a folder of links that the caller has made.

    Raises:
        IntegrityError: It contains something that cannot be stored: a link, a device, names that differ only in case.
    """
    names, _ = _names_below(folder, str(folder), follow_links=follow_links)
    own_manifest = folder / MANIFEST if MANIFEST in names else None
    digests = {name: sha256_of_file(folder / name) for name in names if name != MANIFEST}
    check_names(digests, str(folder))
    if own_manifest is not None and _parsed(own_manifest.read_bytes()) != digests:
        raise IntegrityError(
            f"{folder}/{MANIFEST}", "a file of that name", "no file with the name of a store's manifest", "Rename it."
        )
    return digests


def verify_folder(folder: Path, sha256: str, where: str) -> None:
    """Verifies that a local folder contains exactly the files that were stored under this hash.

    Args:
        folder: The folder.
        sha256: The hash of its files' digests.
        where: Its name in an error.

    Raises:
        IntegrityError: A file is missing, altered or unexpected, or is a link or a device; the manifest is missing or wrong.
    """
    found = folder.lstat() if os.path.lexists(folder) else None
    if found is not None and not stat.S_ISDIR(found.st_mode):
        raise IntegrityError(where, _kind_of(found), _UNTRUE, _MAKE_ANEW)
    manifest = folder / MANIFEST
    if found is None or not os.path.lexists(manifest):
        raise IntegrityError(where, "no manifest", "a complete folder", "Run again; the stage that made it re-runs.")
    names, folders = _names_below(folder, where, follow_links=False)
    digests = read_manifest(manifest.read_bytes(), sha256, where)
    check_exactly(set(names) - {MANIFEST}, digests, where)
    if extra := sorted(folders - {str(parent) for name in names for parent in PurePosixPath(name).parents}):
        raise IntegrityError(
            f"{where}/{extra[0]}", "a folder that was not stored", "only those of its manifest", "Remove it."
        )
    for name, digest in digests.items():
        path = folder / name
        if path.lstat().st_nlink != 1:
            raise IntegrityError(
                f"{where}/{name}",
                "a file with a second name (hard link)",
                "a file that cannot be changed under another name",
                "Copy the store without hard links, or delete the folder and run again.",
            )
        if sha256_of_file(path) != digest:
            raise IntegrityError(f"{where}/{name}", "a missing or altered file", digest[:12], _MAKE_ANEW)


def read_manifest(data: bytes, sha256: str, where: str) -> dict[str, str]:
    """The digests by name in a stored manifest, verified by the folder's hash.

    Raises:
        IntegrityError: It has another hash, or names a file outside of the folder.
    """
    digests = _parsed(data)
    if digests is None or sha256_of_json(digests) != sha256:
        raise IntegrityError(where, "an altered manifest", sha256[:12], "Delete the folder and run again.")
    check_names(digests, where)
    return digests


def check_names(names: Iterable[str], where: str) -> None:
    """Rejects names that are not distinct files below the folder on every filesystem.

    Raises:
        IntegrityError: A name is absolute, leads upwards, is that of the manifest, or differs from another only in case.
    """
    known: dict[str, str] = {}
    for name in names:
        parts = PurePosixPath(name).parts
        plain = bool(parts) and "/".join(parts) == name and ".." not in parts and not name.startswith("/")
        if not plain or "\\" in name or any(unicodedata.category(letter) == "Cc" for letter in name):
            raise IntegrityError(where, f"the file name {name!r}", "names below the folder", _MAKE_ANEW)
        folded = unicodedata.normalize("NFC", name).casefold()
        if folded == MANIFEST.casefold():
            raise IntegrityError(f"{where}/{name}", "a second manifest", f"one {MANIFEST}", "Rename the file.")
        if folded in known:
            raise IntegrityError(
                where, f"two names that differ only in case, {known[folded]!r} and {name!r}", "one of them", "Rename one."
            )
        known[folded] = name


def check_exactly(found: set[str], digests: Mapping[str, str], where: str) -> None:
    """Compares the names in a folder with those of its manifest.

    Raises:
        IntegrityError: One is missing or unexpected; the error names it.
    """
    if extra := sorted(found - set(digests)):
        raise IntegrityError(
            f"{where}/{extra[0]}",
            f"{len(extra)} files that were not stored with this folder",
            "only the files of its manifest",
            "Find out who put them there, remove them, and run again.",
        )
    if missing := sorted(set(digests) - found):
        raise IntegrityError(f"{where}/{missing[0]}", "a missing or altered file", digests[missing[0]][:12], _MAKE_ANEW)


def copy_into_place(source: Path, target: Path, digests: Mapping[str, str], lock: Path, *, follow_links: bool) -> None:
    """Copies a folder's files under a temporary name, then renames it; of concurrent writers one wins, with equal content.

    Args:
        source: The folder to copy.
        target: Its location; a damaged folder there is replaced.
        digests: What :func:`digest_folder` returned for ``source``.
        lock: The lock for the replacement of a damaged folder.
        follow_links: As for :func:`digest_folder`.

    Raises:
        IntegrityError: A file of ``source`` changed meanwhile.
        OSError: The operating system reports an error.
    """
    sha256 = sha256_of_json(dict(digests))
    if _is_whole(target, sha256):
        os.utime(target / MANIFEST)
        return
    make_folders(target.parent)
    partial = unfinished_name(target.parent)
    partial.mkdir()
    try:
        for name, digest in digests.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            if copy_file(source / name, partial / name, follow_link=follow_links) != digest:
                raise IntegrityError(
                    f"{source}/{name}",
                    "a file that changed while it was copied",
                    "an unchanged file",
                    "Run again when it is finished.",
                )
        replace_file(partial / MANIFEST, manifest_of(digests), mode=0o444)
        for folder in {partial / parent for name in digests for parent in PurePosixPath(name).parents}:
            sync_folder(folder)
        move_into_place(partial, target, lock, lambda: _is_whole(target, sha256))
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_into_place(partial: Path, target: Path, lock: Path, is_whole: Callable[[], bool]) -> None:
    """Renames a finished folder to its location, unless an intact one exists; a damaged one is removed first.

    Args:
        partial: The finished folder, beside ``target``.
        target: Its location.
        lock: Held during check and replacement, so that no process removes the folder of another.
        is_whole: Whether the existing folder is intact.

    Raises:
        OSError: The operating system reports an error.
    """
    with locked(lock):
        if os.path.lexists(target):
            if is_whole():
                return
            logger.warning("store: %s is damaged and is replaced", target)
            damaged = unfinished_name(target.parent)
            os.rename(target, damaged)
            remove_tree(damaged)
        os.rename(partial, target)
        sync_folder(target.parent)


def remove_tree(path: Path) -> None:
    """Removes a folder with its content, or a file of that name; links are not followed.

    Raises:
        OSError: The operating system reports an error.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fetch_into_place(
    target: Path, sha256: str, where: str, names: Iterable[str], fetch: Callable[[str, Path], None]
) -> Path:
    """A verified copy of a folder under ``target``, fetched if absent; of concurrent fetches one wins.

    Args:
        target: Location of the copy, in a folder that only this user can access.
        sha256: The folder's hash.
        where: The folder's name in an error.
        names: Its files, including the manifest.
        fetch: Writes the file of that name to a path.

    Raises:
        IntegrityError: The fetched files are not the stored ones.
        OSError: The operating system reports an error.
    """
    if _is_own_and_whole(target, sha256):
        return target
    _remove_stale(target.parent)
    partial = target.parent / f".fetching-{os.urandom(16).hex()}"
    partial.mkdir(mode=0o700)
    try:
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            fetch(name, partial / name)
        verify_folder(partial, sha256, where)
        move_into_place(partial, target, target.parent / ".lock", lambda: _is_own_and_whole(target, sha256))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _remove_stale(cache: Path) -> None:
    """Removes the files of fetches that were killed more than a day ago."""
    for path in cache.iterdir():
        with suppress(FileNotFoundError):  # another fetch has just given its folder the final name
            if _PARTIAL.fullmatch(path.name) and time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _is_whole(folder: Path, sha256: str) -> bool:
    try:
        verify_folder(folder, sha256, str(folder))
    except (IntegrityError, FileNotFoundError):
        return False
    return True


def _is_own_and_whole(folder: Path, sha256: str) -> bool:
    """Whether a copy is intact and owned by this user: the owner of a file can change it after its verification."""
    return _is_whole(folder, sha256) and all(path.lstat().st_uid == os.geteuid() for path in (folder, *folder.rglob("*")))


def _names_below(folder: Path, where: str, *, follow_links: bool) -> tuple[list[str], set[str]]:
    """The sorted relative names of all regular files below a folder, and those of its subfolders.

    Raises:
        IntegrityError: It contains anything else, which the error names.
    """
    names: list[str] = []
    folders: set[str] = set()
    waiting = [folder]
    while waiting:
        for entry in os.scandir(waiting.pop()):
            name = Path(entry.path).relative_to(folder).as_posix()
            if entry.is_dir(follow_symlinks=False):
                folders.add(name)
                waiting.append(Path(entry.path))
            elif entry.is_file(follow_symlinks=follow_links):
                names.append(name)
            else:
                raise IntegrityError(
                    f"{where}/{name}",
                    _kind_of(entry.stat(follow_symlinks=False)),
                    "only regular files in real folders",
                    "Replace it by a copy of its target, or remove it, and run again.",
                )
    return sorted(names), folders


def _parsed(data: bytes) -> dict[str, str] | None:
    """The digests by name in a manifest; None if it has another form."""
    try:
        digests = json.loads(data)
    except ValueError:
        return None
    if not isinstance(digests, dict) or not all(isinstance(digest, str) for digest in digests.values()):
        return None
    return digests


def _kind_of(found: os.stat_result) -> str:
    if stat.S_ISLNK(found.st_mode):
        return "a symbolic link"
    if stat.S_ISFIFO(found.st_mode) or stat.S_ISSOCK(found.st_mode):
        return "a pipe or socket"
    if stat.S_ISBLK(found.st_mode) or stat.S_ISCHR(found.st_mode):
        return "a device"
    return "a file" if stat.S_ISREG(found.st_mode) else "a folder"
