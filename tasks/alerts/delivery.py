"""Turns waiting alerts into runs, for as long as it takes; knows Prefect only as a function that may fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Literal, Protocol

from tasks.alerts.queue import AlertQueue, Waiting
from tasks.contracts.alerts import Alert

logger = logging.getLogger(__name__)

_POLL_SECONDS = 5.0
"""How late a postponed alert may be seen when nothing wakes the courier."""
_KEEP_DELIVERED_SECONDS = 30 * 86_400.0
Result = Literal["delivered", "refused", "unavailable", "failed"]


class UnavailableError(Exception):
    """Nobody answers as Prefect does; says nothing about the alert."""


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

    A failed delivery concerns its alert alone, whatever the failure: that alert is tried again after a pause of its own,
    which doubles, and for ever, because what is missing (a server, a deployment) can be brought. Those tried least come
    first, so that no failing alert stands before a new one.

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
        num_faults = 0
        while True:
            self._news.clear()
            try:
                result = await self.deliver_next()
            except sqlite3.Error as error:
                num_faults += 1
                logger.error("the queue cannot be used: %s", type(error).__name__)
                await asyncio.sleep(pause_seconds(num_faults, self._first, self._longest))
                continue
            num_faults = 0
            if result in ("delivered", "refused"):
                continue
            if result in ("unavailable", "failed"):
                # A server that is down is asked once in a while, however many alerts wait for it.
                await asyncio.sleep(self._first)
                continue
            # Not `wait_for`: until Python 3.12 it loses a cancellation that comes together with the news.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_SECONDS, self._first)):
                    await self._news.wait()

    async def deliver_next(self) -> Result | None:
        """Tries one alert that is due; None when none is."""
        waiting = await asyncio.to_thread(self._queue.due, self._clock(), 1)
        if not waiting:
            await asyncio.to_thread(self._queue.forget_delivered, self._clock() - _KEEP_DELIVERED_SECONDS)
            return None
        result = await self._deliver(waiting[0])
        self._report(result)
        return result

    async def _deliver(self, item: Waiting) -> Result:
        try:
            run_id = await self._start_run(item.alert, item.key)
        except UnavailableError as error:
            await self._postpone(item, f"Prefect does not answer ({error})")
            return "unavailable"
        except RefusedError as error:
            await self._postpone(item, f"it was refused ({error})")
            return "refused"
        except Exception as error:  # the boundary between one alert and all others: a defect here must not stop delivery
            await self._postpone(item, f"an error that nobody expected ({type(error).__name__})")
            return "failed"
        await asyncio.to_thread(self._queue.mark_delivered, item.key, run_id, self._clock())
        logger.info("alert %s is run %s", item.key, run_id)
        return "delivered"

    async def _postpone(self, item: Waiting, why: str) -> None:
        pause = pause_seconds(item.num_attempts + 1, self._first, self._longest)
        logger.error("alert %s has no run yet: %s; again in %.0f s", item.key, why, pause)
        await asyncio.to_thread(self._queue.postpone, item.key, self._clock() + pause)


async def keep_running(
    work: Callable[[], Awaitable[None]],
    *,
    retry_seconds: float,
    max_retry_seconds: float,
    on_change: Callable[[bool], None],
) -> None:
    """Runs work that should never end, and starts it again whenever it does, after pauses that double.

    Args:
        work: What runs until it is cancelled.
        retry_seconds: First pause.
        max_retry_seconds: Longest pause.
        on_change: Told True when the work starts and False when it ended.
    """
    num_deaths = 0
    while True:
        on_change(True)
        try:
            await work()
            why = "without an error"
        except Exception as error:
            why = f"with {type(error).__name__}"
            logger.error("delivery ended %s", why, exc_info=True)
        on_change(False)
        num_deaths += 1
        pause = pause_seconds(num_deaths, retry_seconds, max_retry_seconds)
        logger.error("delivery ended %s; it starts again in %.0f s", why, pause)
        await asyncio.sleep(pause)
