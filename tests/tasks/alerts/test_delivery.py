"""Delivery: nothing is given up, an outage stops everything and a refusal only itself."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.alerts.delivery import Courier, RefusedError, Result, UnavailableError, pause_seconds
from tasks.alerts.queue import AlertQueue
from tasks.contracts import Alert

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
            raise RefusedError("there is no deployment")
        return self.runs.setdefault(key, f"run-{len(self.runs)}")


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[AlertQueue]:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    yield queue
    queue.close()


def courier(queue: AlertQueue, prefect: FakePrefect, results: list[Result], clock: Callable[[], float]) -> Courier:
    return Courier(queue, prefect, retry_seconds=2, max_retry_seconds=10, report=results.append, clock=clock)


def test_an_outage_stops_the_round_and_costs_no_alert_its_turn(queue: AlertQueue, make_alert: MakeAlert) -> None:
    prefect, results = FakePrefect(), list[Result]()
    queue.offer([make_alert("a"), make_alert("b"), make_alert("c")], 100.0)
    prefect.down = True
    worker = courier(queue, prefect, results, lambda: 100.0)
    assert asyncio.run(worker.deliver_due()) is False
    assert (prefect.num_calls, queue.backlog().num_waiting) == (1, 3)
    prefect.down = False
    assert asyncio.run(worker.deliver_due()) is True
    assert len(prefect.runs) == 3
    assert results == ["unavailable", "delivered", "delivered", "delivered"]


def test_a_refused_alert_waits_alone_and_longer_each_time_and_is_delivered_when_the_cause_is_mended(
    queue: AlertQueue, make_alert: MakeAlert
) -> None:
    prefect, now = FakePrefect(), 100.0
    queue.offer([make_alert("bad"), make_alert("good")], now)
    prefect.refused = {"bad"}
    worker = courier(queue, prefect, [], lambda: now)
    attempts = []
    for _ in range(60):
        calls = prefect.num_calls
        assert asyncio.run(worker.deliver_due()) is True
        attempts += [now] if prefect.num_calls > calls else []
        now += 1.0
    assert [later - earlier for earlier, later in itertools.pairwise(attempts)][:4] == [2, 4, 8, 10]
    assert len(prefect.runs) == 1
    prefect.refused = set()
    now += 10.0
    asyncio.run(worker.deliver_due())
    assert (len(prefect.runs), queue.backlog().num_waiting) == (2, 0)


def test_a_run_made_and_not_noted_is_made_again_under_its_key(queue: AlertQueue, make_alert: MakeAlert) -> None:
    prefect = FakePrefect()
    queue.offer([make_alert()], 100.0)
    (item,) = queue.due(100.0)
    asyncio.run(prefect(item.alert, item.key))  # and the process dies
    asyncio.run(courier(queue, prefect, [], lambda: 101.0).deliver_due())
    assert (prefect.num_calls, len(prefect.runs)) == (2, 1)


def test_the_background_loop_outlives_an_outage_and_a_broken_queue(
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


def test_a_courier_that_is_told_news_and_cancelled_at_once_ends(queue: AlertQueue) -> None:
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
