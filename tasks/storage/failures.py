"""What a filesystem or an object store refuses, as one clear error."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.errors import StoreError


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turns the operating system's refusals into one clear :class:`StoreError`.

    Args:
        where: What was read or written.
    """
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
