"""Delivery: waiting alerts become runs, with retries for ever. Prefect is a function that may fail."""

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
"""The longest delay of a postponed alert when nothing wakes the courier."""
_KEEP_DELIVERED_SECONDS = 30 * 86_400.0
Result = Literal["delivered", "refused", "unavailable", "failed"]


class UnavailableError(Exception):
    """Prefect does not respond, whatever the alert."""


class AlertRejectedError(Exception):
    """Prefect rejects one alert: there is no such deployment, or it does not take such parameters."""


class StartRun(Protocol):
    """Starts the run of an alert; the same key again gives the same run."""

    async def __call__(self, alert: Alert, key: str) -> str:
        """The run's id.

        Raises:
            UnavailableError: Prefect does not respond.
            AlertRejectedError: Prefect rejects the alert.
        """


def pause_seconds(num_failures: int, first: float, longest: float) -> float:
    """The pause after a number of failures in a row: it doubles, up to ``longest``."""
    return min(longest, first * 2.0 ** min(num_failures - 1, 60))


class Courier:
    """Delivers the waiting alerts of a queue, in the background.

    A failed delivery affects its alert alone: that alert is retried for ever, after pauses that double, because a missing
    server or deployment can be added. Alerts with the fewest attempts come first, so that no failing alert delays a new one.

    Args:
        queue: The waiting alerts.
        start_run: Starts the run of an alert.
        retry_seconds: First pause.
        max_retry_seconds: Longest pause.
        report: Called with the result of each attempt.
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
        self._wake_up = asyncio.Event()

    def wake(self) -> None:
        """Signals that a new alert waits."""
        self._wake_up.set()

    async def run(self) -> None:
        """Delivers until cancelled."""
        num_faults = 0
        while True:
            self._wake_up.clear()
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
                # One attempt per pause while the server is down, however many alerts wait.
                await asyncio.sleep(self._first)
                continue
            # Not `wait_for`: until Python 3.12 it loses a cancellation that arrives together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(_POLL_SECONDS, self._first)):
                    await self._wake_up.wait()

    async def deliver_next(self) -> Result | None:
        """Attempts one alert that is due; None when none is."""
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
            await self._postpone(item, f"Prefect does not respond ({error})")
            return "unavailable"
        except AlertRejectedError as error:
            await self._postpone(item, f"Prefect rejected it ({error})")
            return "refused"
        except Exception as error:  # a defect in one alert must not stop the delivery of the others
            await self._postpone(item, f"an unexpected error ({type(error).__name__})")
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
    """Runs work that should never end, and restarts it whenever it does, after pauses that double.

    Args:
        work: Runs until it is cancelled.
        retry_seconds: First pause.
        max_retry_seconds: Longest pause.
        on_change: Called with True when the work starts and with False when it ended.
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
