"""Records that a server did not take, kept on disk until it does: what an outage, or a kill during one, must not cost.

A file holds the records of one writer, a JSON object a line. Its writer holds a lock on it for as long as it lives, so that
nobody else sends what is still being written; a writer that was killed leaves the file, without the lock, to the next one.
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
    """A file of records that could not be delivered yet; it appears with the first one.

    A disk that is full or read-only costs a warning: the records then wait in memory alone.

    Args:
        folder: Where the file lies.
        name: How its name begins.
        header: Its first line: where the records are to go.
    """

    def __init__(self, folder: Path, name: str, header: Record) -> None:
        self._path = folder / f"{name}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._header = header
        self._file: IO[str] | None = None

    @property
    def path(self) -> Path:
        """The file, which need not exist."""
        return self._path

    def keep(self, records: Iterable[Record]) -> None:
        """Adds records."""
        try:
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # For this user alone: an artifact that waits may be a dossier, with examples in it.
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file = os.fdopen(descriptor, "w", encoding="utf-8")
                fcntl.flock(self._file, fcntl.LOCK_EX)
                self._file.write(json.dumps(self._header) + "\n")
            self._file.writelines(json.dumps(record) + "\n" for record in records)
            self._file.flush()
        except OSError as error:
            logger.warning("%s cannot be written (%s); records wait in memory alone", self._path, error.strerror)

    def discard(self) -> None:
        """Removes the file: everything was delivered."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            self.leave()

    def leave(self) -> None:
        """Leaves the file to whoever sends it next."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def kept_files(folder: Path) -> list[Path]:
    """The files that wait in a folder, oldest first by name within a run."""
    return sorted(folder.glob("*.jsonl"))


@contextmanager
def claimed(path: Path) -> Iterator[tuple[Record, list[Record]] | None]:
    """Header and records of a file whose writer has gone, under its lock; None while somebody else has it.

    A line that a kill cut short is left out. The file stays; who has delivered it removes it inside the block.
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
        lines = [one for one in map(_read, file) if one is not None]
        # Gone meanwhile: another process had it first and has delivered it.
        yield (lines[0], lines[1:]) if lines and path.exists() else None


def _read(line: str) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
