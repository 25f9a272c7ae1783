"""Connections with limits of their time and number, both before authentication.

uvicorn limits the size of headers, and the idle time between two requests. It does not limit a connection that sends half of
its headers, or that continues to send a rejected body.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from uvicorn.protocols.http.h11_impl import H11Protocol

ANSWER_SECONDS = 60.0
"""From a complete request head to the last byte of its response; the body has its own, shorter limit."""
Closed = Literal["slow", "crowd"]
"""Why a connection was closed without a response: it took too long, or there were too many."""


class BoundedConnection(H11Protocol):
    """uvicorn's HTTP/1.1 connection, closed when a request's head is late or when there are too many connections.

    The time for a head starts with the connection or with the end of the last response; bytes do not extend it.

    Args:
        args: uvicorn's own.
        head_seconds: Time for a complete request head.
        max_connections: Open connections. A further one replaces the one that waits longest for its head; where all are
            at work, the further one is closed.
        report: Called with the reason why a connection was closed.
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
        """Starts the time for the first head, and closes a connection where there are too many."""
        super().connection_made(transport)
        self._limit(self._head_seconds)
        if len(self.connections) > self._max_connections:
            others = [other for other in self.connections if isinstance(other, BoundedConnection) and other is not self]
            waiting = [other for other in others if not other._is_serving and not other.transport.is_closing()]
            min(waiting, key=lambda other: other._expires_at, default=self)._close("crowd")

    def data_received(self, data: bytes) -> None:
        """Starts the time for the response once a head is complete."""
        super().data_received(data)
        if not self._is_serving and self.cycle is not None and not self.cycle.response_complete:
            self._is_serving = True
            self._limit(ANSWER_SECONDS)

    def on_response_complete(self) -> None:
        """Starts the time for the next head."""
        self._is_serving = False
        self._limit(self._head_seconds)
        super().on_response_complete()  # may start the next request, where that arrived already
        if self.cycle is not None and not self.cycle.response_complete:
            self._is_serving = True
            self._limit(ANSWER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancels the time limit."""
        self._cancel_limit()
        super().connection_lost(exc)

    @property
    def _expires_at(self) -> float:
        return self._deadline.when() if self._deadline else 0.0

    def _limit(self, seconds: float) -> None:
        self._cancel_limit()
        if not self.transport.is_closing():
            self._deadline = self.loop.call_later(seconds, self._close, "slow")

    def _cancel_limit(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _close(self, reason: Closed) -> None:
        self._cancel_limit()
        if not self.transport.is_closing():
            self._report(reason)
            # Not `close`, which waits until the peer has read everything.
            self.transport.abort()
