"""Reads all pages of a list from a server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")

PAGE = 200


def every(read: Callable[[int, int], Sequence[T]]) -> Iterator[T]:
    """The items of all pages.

    Args:
        read: Returns the page for a limit and an offset; a page below the limit is the last.
    """
    offset = 0
    while True:
        page = read(PAGE, offset)
        yield from page
        offset += len(page)
        if len(page) < PAGE:
            return


async def every_async(read: Callable[[int, int], Awaitable[Sequence[T]]]) -> list[T]:
    """The items of all pages of an asynchronous client; see :func:`every`."""
    found: list[T] = []
    while True:
        page = await read(PAGE, len(found))
        found += page
        if len(page) < PAGE:
            return found


def every_token(read: Callable[[int, str | None], Sequence[T]]) -> Iterator[T]:
    """The items of all pages of a list with page tokens, such as MLflow's.

    Args:
        read: Returns the page for a limit and a token; the page's attribute ``token`` is that of the next page, if any.
    """
    token: str | None = None
    while True:
        page = read(PAGE, token)
        yield from page
        token = getattr(page, "token", None)
        if not token:
            return
