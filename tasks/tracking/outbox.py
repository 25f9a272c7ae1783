"""An outbox: keeps undelivered records on disk, so that neither an outage nor a kill during one loses them.

A file holds the records of one writer, one JSON object per line. The writer locks it while it runs, so that no other process
sends unfinished records; a killed writer leaves the file unlocked to the next process.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]


class Outbox:
    """A file of undelivered records, created with the first one.

    If the disk is full or read-only, a warning is logged and the records wait only in memory.

    Args:
        folder: The folder of the file.
        name: Prefix of its name.
        header: Its first line: the destination of the records.
    """

    def __init__(self, folder: Path, name: str, header: Record) -> None:
        self._path = folder / f"{name}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._header = header
        self._file: IO[str] | None = None

    @property
    def path(self) -> Path:
        """The file, which may not exist yet."""
        return self._path

    def keep(self, records: Iterable[Record]) -> None:
        """Adds records."""
        try:
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Only this user may read it: an artifact may be a dossier, which contains examples.
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file = os.fdopen(descriptor, "w", encoding="utf-8")
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._file.write(json.dumps(self._header) + "\n")
            self._file.writelines(json.dumps(record) + "\n" for record in records)
            self._file.flush()
        except OSError as error:
            logger.warning("%s cannot be written (%s); records wait only in memory", self._path, error.strerror)

    def discard(self) -> None:
        """Removes the file after all records were delivered."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self.leave()

    def leave(self) -> None:
        """Closes the file, for the next process to send it."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def kept_files(folder: Path) -> list[Path]:
    """The undelivered files in a folder, sorted by name, which is by age within a run."""
    return sorted(folder.glob("*.jsonl"))


@contextmanager
def claimed(path: Path) -> Iterator[tuple[Record, list[Record]] | None]:
    """Header and records of a file whose writer has ended, under its lock; None while another process holds the lock.

    A line that a kill truncated is skipped. The caller removes the file inside the block after delivery.
    """
    try:
        file = path.open(encoding="utf-8")
    except FileNotFoundError:
        yield None
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        lines = [record for record in map(_read, file) if record is not None]
        # If the file no longer exists, another process has delivered it.
        yield (lines[0], lines[1:]) if lines and path.exists() else None


def _read(line: str) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
