"""Turns waiting alerts into runs, for as long as it takes; knows Prefect only as a function that may fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Literal, Protocol

from tasks.alerts.queue import AlertQueue, Waiting
from tasks.contracts import Alert

logger = logging.getLogger(__name__)

_POLL_SECONDS = 5.0
"""How late a postponed alert may be seen when nothing wakes the courier."""
_KEEP_DELIVERED_SECONDS = 30 * 86_400.0
Result = Literal["delivered", "refused", "unavailable"]


class UnavailableError(Exception):
    """Nobody answers: neither for this alert nor, now, for any other."""


class RefusedError(Exception):
    """The answer to one alert is no: there is no such deployment, or it does not take such parameters."""


class StartRun(Protocol):
    """Makes an alert a run; the same key again gives the same run."""

    async def __call__(self, alert: Alert, key: str) -> str:
        """The run's id.

        Raises:
            UnavailableError: Nobody answers.
            RefusedError: The answer is no.
        """


def pause_seconds(num_failures: int, first: float, longest: float) -> float:
    """The pause after so many failures in a row: it doubles, up to ``longest``."""
    return min(longest, first * 2.0 ** min(num_failures - 1, 60))


class Courier:
    """Delivers what waits in a queue, in the background.

    While Prefect does not answer, everything waits together; an alert that is refused waits alone, and is tried again
    for ever, because what is missing (a deployment) can be brought. Nothing is ever given up.

    Args:
        queue: What waits.
        start_run: Makes an alert a run.
        retry_seconds: First pause.
        max_retry_seconds: Longest pause.
        report: Told the result of each attempt.
        clock: Unix time.
    """

    def __init__(
        self,
        queue: AlertQueue,
        start_run: StartRun,
        *,
        retry_seconds: float,
        max_retry_seconds: float,
        report: Callable[[Result], None] = lambda result: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._queue = queue
        self._start_run = start_run
        self._first, self._longest = retry_seconds, max_retry_seconds
        self._report = report
        self._clock = clock
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Tells that something new waits."""
        self._news.set()

    async def run(self) -> None:
        """Delivers until cancelled."""
        num_outages = 0
        while True:
            self._news.clear()
            try:
                answered = await self.deliver_due()
            except sqlite3.Error as error:
                logger.error("the queue cannot be used: %s", type(error).__name__)
                answered = False
            if not answered:
                num_outages += 1
                await asyncio.sleep(pause_seconds(num_outages, self._first, self._longest))
                continue
            num_outages = 0
            # Not `wait_for`: until Python 3.12 it loses a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_SECONDS, self._first)):
                    await self._news.wait()

    async def deliver_due(self) -> bool:
        """Tries every alert that is due once; False when nobody answered and the rest still waits."""
        while waiting := await asyncio.to_thread(self._queue.due, self._clock()):
            for item in waiting:
                if not await self._deliver(item):
                    return False
        await asyncio.to_thread(self._queue.forget_delivered, self._clock() - _KEEP_DELIVERED_SECONDS)
        return True

    async def _deliver(self, item: Waiting) -> bool:
        try:
            run_id = await self._start_run(item.alert, item.key)
        except UnavailableError as error:
            self._report("unavailable")
            logger.warning("Prefect does not answer (%s); alerts wait", error)
            return False
        except RefusedError as error:
            self._report("refused")
            pause = pause_seconds(item.num_attempts + 1, self._first, self._longest)
            logger.error("alert %s was refused (%s); again in %.0f s", item.key, error, pause)
            await asyncio.to_thread(self._queue.postpone, item.key, self._clock() + pause)
            return True
        await asyncio.to_thread(self._queue.mark_delivered, item.key, run_id, self._clock())
        self._report("delivered")
        logger.info("alert %s is run %s", item.key, run_id)
        return True
