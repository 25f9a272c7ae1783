"""Creates an object on a server if it is absent, safely among concurrent callers.

Between lookup and creation another caller may create the object: a starting worker its pool, a second command its limit.
An "already exists" response therefore counts as success.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tasks.core.errors import PerennialError

T = TypeVar("T")

_ATTEMPTS = 3


class AlreadyThereError(Exception):
    """A server reports that the object exists already; for clients without such an exception."""


def ensure(
    where: str, look: Callable[[], T | None], make: Callable[[], object], already: type[Exception] = AlreadyThereError
) -> tuple[T, bool]:
    """The object, and whether this call created it.

    Args:
        where: The object's name in an error.
        look: Returns the object, or None if it is absent.
        make: Creates it.
        already: What ``make`` raises if the object exists already.

    Raises:
        PerennialError: The server reports that the object exists, and does not return it.
    """
    for _ in range(_ATTEMPTS):
        found = look()
        if found is not None:
            return found, False
        try:
            make()
        except already:
            continue
        found = look()
        if found is not None:
            return found, True
    raise PerennialError(
        where,
        "a server that reports that it exists, and does not return it",
        "the object itself",
        "It may be being removed, or this account may not read it. Run again.",
    )
