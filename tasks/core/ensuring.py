"""Looking for a thing on a server and making it where it is absent, while others may do the same at the same moment.

Between the look and the making anybody may make the thing: a worker that starts makes its pool, a second command its
limit. So the answer "it is there already" is as good as having made it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from tasks.core.errors import PerennialError

T = TypeVar("T")

_ATTEMPTS = 3


class AlreadyThereError(Exception):
    """A server's answer that the thing to be made exists; for clients that have no such exception of their own."""


def ensure(
    where: str, look: Callable[[], T | None], make: Callable[[], object], already: type[Exception] = AlreadyThereError
) -> tuple[T, bool]:
    """The thing, and whether this call made it.

    Args:
        where: The thing's name in an error.
        look: Returns the thing, or None where it is absent.
        make: Makes it.
        already: What ``make`` raises where the thing is there already.

    Raises:
        PerennialError: The server says that the thing is there, and does not show it.
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
        "a server that has it and does not show it",
        "the thing itself",
        "Somebody may be removing it at this moment, or this account may not read it. Run again.",
    )
