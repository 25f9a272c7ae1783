"""Connections with a time limit and a limit of their number, both before anybody is authenticated.

uvicorn limits the size of headers, and how long a connection may idle between two requests. A connection that sends half of
its headers, or goes on sending a body that was refused, has no end there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWER_SECONDS = 60.0
"""From a complete request head to the last byte of its answer; the body has its own, shorter limit."""
Closed = Literal["slow", "crowd"]
"""Why a connection was closed without an answer: it took too long, or there were too many."""


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, closed when a request's head is late, and when there are too many connections.

    The time for a head counts from the connection's begin, or from the end of the last answer; bytes do not extend it.

    Args:
        args: uvicorn's own.
        head_seconds: Time for a complete request head.
        max_connections: Open connections. A further one takes the place of that which has waited longest for its head;
            where all are at work, the further one is closed.
        report: Told why a connection was closed.
        kwargs: uvicorn's own.
    """

    def __init__(
        self, *args: Any, head_seconds: float, max_connections: int, report: Callable[[Closed], None], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._max_connections = max_connections
        self._report = report
        self._deadline: asyncio.TimerHandle | None = None
        self._is_serving = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Starts the time for the first head, and makes room."""
        super().connection_made(transport)
        self._limit(self._head_seconds)
        if len(self.connections) > self._max_connections:
            others = [one for one in self.connections if isinstance(one, BoundedConnection) and one is not self]
            waiting = [one for one in others if not one._is_serving and not one.transport.is_closing()]
            min(waiting, key=lambda one: one._expires_at, default=self)._close("crowd")

    def data_received(self, data: bytes) -> None:
        """Starts the time for the answer once a head is complete."""
        super().data_received(data)
        if not self._is_serving and self.cycle is not None and not self.cycle.response_complete:
            self._is_serving = True
            self._limit(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Starts the time for the next head."""
        self._is_serving = False
        self._limit(self._head_seconds)
        super().on_response_complete()  # may begin with the next request, where that came already
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_serving = True
            self._limit(ANSWER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the time limit."""
        self._forget_limit()
        super().connection_lost(exc)

    @property
    def _expires_at(self) -> float:
        return self._deadline.when() if self._deadline else 0.0

    def _limit(self, seconds: float) -> None:
        self._forget_limit()
        if not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self._close, "slow")

    def _forget_limit(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, reason: Closed) -> None:
        self._forget_limit()
        if not self.transport.is_closing():
            self._report(reason)
            # Not `close`, which waits until what is to be written was read.
            self.transport.abort()
