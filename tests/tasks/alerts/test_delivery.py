"""Delivery: nothing is given up, and a failure concerns its own alert alone."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tasks.alerts.delivery import AlertRejectedError, Courier, Result, UnavailableError, keep_running, pause_seconds
from tasks.alerts.queue import AlertQueue
from tasks.contracts.alerts import Alert

MakeAlert = Callable[..., Alert]


class FakePrefect:
    """Runs by idempotency key; may be down, and may refuse."""

    def __init__(self) -> None:
        self.runs: dict[str, str] = {}
        self.num_calls = 0
        self.down = False
        self.refused: set[str] = set()

    async def __call__(self, alert: Alert, key: str) -> str:
        self.num_calls += 1
        if self.down:
            raise UnavailableError("ConnectError")
        if alert.fingerprint in self.refused:
            raise AlertRejectedError("there is no deployment")
        return self.runs.setdefault(key, f"run-{len(self.runs)}")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[AlertQueue]:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    yield queue
    queue.close()


def courier(queue: AlertQueue, prefect: FakePrefect, results: list[Result], clock: Callable[[], float]) -> Courier:
    return Courier(queue, prefect, retry_seconds=2, max_retry_seconds=10, report=results.append, clock=clock)


def deliver_all(worker: Courier) -> None:
    """Tries everything that is due, once each while the clock stands."""

    async def scenario() -> None:
        while await worker.deliver_next():
            pass

    asyncio.run(scenario())


def test_in_an_outage_each_alert_waits_for_itself_and_all_are_delivered_afterwards(
    queue: AlertQueue, make_alert: MakeAlert
) -> None:
    prefect, results, now = FakePrefect(), list[Result](), 100.0
    queue.offer([make_alert("a"), make_alert("b"), make_alert("c")], now)
    prefect.down = True
    worker = courier(queue, prefect, results, lambda: now)
    deliver_all(worker)
    assert (prefect.num_calls, queue.backlog().num_waiting) == (3, 3)
    prefect.down = False
    now += 2.0
    deliver_all(worker)
    assert len(prefect.runs) == 3
    assert results == ["unavailable"] * 3 + ["delivered"] * 3


@pytest.mark.parametrize(
    "error",
    [
        UnavailableError("status 500"),
        AlertRejectedError("status 409"),
        json.JSONDecodeError("Expecting value", "<html>", 0),
        KeyError("id"),
        RuntimeError("the transport was closed"),
        AssertionError("a defect"),
        httpx.InvalidURL("no host"),
        httpx.StreamConsumed(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_alert_that_always_fails_delays_no_other(queue: AlertQueue, make_alert: MakeAlert, error: Exception) -> None:
    prefect = FakePrefect()

    async def start_run(alert: Alert, key: str) -> str:
        if alert.fingerprint.startswith("bad"):
            raise error
        return await prefect(alert, key)

    async def scenario() -> None:
        worker = Courier(queue, start_run, retry_seconds=0.01, max_retry_seconds=0.01)
        task = asyncio.create_task(worker.run())
        queue.offer([make_alert(f"bad-{number}") for number in range(20)], 100.0)
        worker.wake()
        for number in range(20):
            queue.offer([make_alert(f"good-{number}")], 100.0)
            worker.wake()
            while len(prefect.runs) <= number:
                assert not task.done()
                await asyncio.sleep(0.001)
        task.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert queue.backlog().num_waiting == 20


def test_work_that_ends_is_restarted_and_each_end_is_reported() -> None:
    changes: list[bool] = []
    errors: list[Exception | None] = [ValueError("a row"), None, sqlite3.ProgrammingError("closed")]

    async def work() -> None:
        if not errors:
            await asyncio.Event().wait()
        if error := errors.pop(0):
            raise error

    async def scenario() -> None:
        running = keep_running(work, retry_seconds=0.001, max_retry_seconds=0.002, on_change=changes.append)
        task = asyncio.create_task(running)
        while errors or not changes[-1]:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert changes == [True, False] * 3 + [True]


def test_a_rejected_alert_waits_alone_and_longer_each_time_until_the_cause_is_fixed(
    queue: AlertQueue, make_alert: MakeAlert
) -> None:
    prefect, now = FakePrefect(), 100.0
    queue.offer([make_alert("bad"), make_alert("good")], now)
    prefect.refused = {"bad"}
    worker = courier(queue, prefect, [], lambda: now)
    attempts = []
    for _ in range(60):
        calls = prefect.num_calls
        deliver_all(worker)
        attempts += [now] if prefect.num_calls > calls else []
        now += 1.0
    assert [later - earlier for earlier, later in itertools.pairwise(attempts)][:4] == [2, 4, 8, 10]
    assert len(prefect.runs) == 1
    prefect.refused = set()
    now += 10.0
    deliver_all(worker)
    assert (len(prefect.runs), queue.backlog().num_waiting) == (2, 0)


def test_a_run_that_was_not_recorded_is_started_again_under_its_key(queue: AlertQueue, make_alert: MakeAlert) -> None:
    prefect = FakePrefect()
    queue.offer([make_alert()], 100.0)
    (item,) = queue.due(100.0)
    asyncio.run(prefect(item.alert, item.key))  # and the process dies
    deliver_all(courier(queue, prefect, [], lambda: 101.0))
    assert (prefect.num_calls, len(prefect.runs)) == (2, 1)


def test_the_background_loop_survives_an_outage_and_a_broken_queue(
    queue: AlertQueue, make_alert: MakeAlert, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefect, results = FakePrefect(), list[Result]()
    due, failures = queue.due, iter([sqlite3.OperationalError("disk I/O error")])

    def sometimes(now: float, limit: int = 100) -> object:
        for failure in failures:
            raise failure
        return due(now, limit)

    monkeypatch.setattr(queue, "due", sometimes)

    async def scenario() -> None:
        worker = Courier(queue, prefect, retry_seconds=0.01, max_retry_seconds=0.02, report=results.append)
        task = asyncio.create_task(worker.run())
        prefect.down = True
        queue.offer([make_alert()], 100.0)
        worker.wake()
        while "unavailable" not in results:
            await asyncio.sleep(0.005)
        prefect.down = False
        while queue.backlog().num_waiting:
            await asyncio.sleep(0.005)
        task.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 20))
    assert len(prefect.runs) == 1


def test_a_courier_that_is_woken_and_cancelled_at_once_ends(queue: AlertQueue) -> None:
    async def scenario() -> None:
        for _ in range(20):
            worker = Courier(queue, FakePrefect(), retry_seconds=5, max_retry_seconds=5)
            task = asyncio.create_task(worker.run())
            await asyncio.sleep(0.01)
            worker.wake()
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=2)
            assert task.cancelled()

    asyncio.run(scenario())


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause_seconds(number, 1.0, 60.0) for number in (1, 2, 3, 6, 7, 500)] == [1, 2, 4, 32, 60, 60]
