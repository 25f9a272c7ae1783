"""Translates errors of filesystems and object storage into one error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import StoreError


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Translates errors of the operating system, or of object storage, into one :class:`StoreError`.

    Args:
        where: The file that is read or written.
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
                "a separate folder",
                "Set `store` to another location.",
            ) from error
        raise _no_answer(where, error.strerror or str(error) or type(error).__name__) from error
    except _client_errors() as error:
        # Only the type: the text may contain an address with a password.
        raise _no_answer(where, type(error).__name__) from error


def _no_answer(where: str, found: str) -> StoreError:
    return StoreError(
        where,
        found,
        "a store that responds",
        "Check its folder, mount, network or credentials, then run again; finished stages are kept.",
    )


def _client_errors() -> tuple[type[Exception], ...]:
    """The exceptions of S3's client other than OSError; empty if it was never imported."""
    exceptions = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))
    return tuple(getattr(sys.modules[module], name) for module, name in exceptions if module in sys.modules)
