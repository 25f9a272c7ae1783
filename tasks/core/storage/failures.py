"""What a filesystem or an object store refuses, as one clear error."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import StoreError


@contextmanager
def store_errors(where: str) -> Iterator[None]:
    """Turns the refusals of the operating system, or of object storage, into one clear :class:`StoreError`.

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
        raise _no_answer(where, error.strerror or str(error) or type(error).__name__) from error
    except _client_errors() as error:
        # By its kind alone: the text may repeat an address with a password in it.
        raise _no_answer(where, type(error).__name__) from error


def _no_answer(where: str, found: str) -> StoreError:
    return StoreError(
        where,
        found,
        "a store that answers",
        "Check its folder, mount, network or credentials, then run again; finished stages are kept.",
    )


def _client_errors() -> tuple[type[Exception], ...]:
    """What S3's client raises beside OSError; nothing where it was never imported."""
    known = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"))
    return tuple(getattr(sys.modules[module], name) for module, name in known if module in sys.modules)
