"""The queue keeps what it took, takes nothing twice within the cool-down, and survives a kill between any two steps."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.alerts.queue import AlertQueue, QueueFullError
from tasks.contracts.alerts import Alert
from tasks.core.errors import StoreError

ROOT = Path(__file__).parents[3]
MakeAlert = Callable[..., Alert]


def test_an_accepted_alert_waits_until_it_is_delivered_whatever_happens_to_the_process(
    tmp_path: Path, make_alert: MakeAlert
) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    assert queue.offer([make_alert()], 1000.0) == [True]
    queue.close()
    again = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    (waiting,) = again.due(1000.0)
    assert waiting.alert == make_alert()
    again.postpone(waiting.key, 1010.0)
    assert again.due(1009.0) == []
    assert [(item.key, item.num_attempts) for item in again.due(1010.0)] == [(waiting.key, 1)]
    again.mark_delivered(waiting.key, "run-1", 1011.0)
    assert again.due(9999.0) == []
    assert again.backlog().num_waiting == 0


def test_every_commit_is_synchronised(tmp_path: Path) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    assert queue._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert queue._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_the_same_fingerprint_of_another_model_is_another_alert(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    alerts = [make_alert(), make_alert(model="bank"), make_alert("f2"), make_alert()]
    assert queue.offer(alerts, 0.0) == [True, True, True, False]


def test_a_full_queue_accepts_nothing_of_an_offer_but_recognises_repetitions(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60, max_waiting=2)
    queue.offer([make_alert("f1")], 0.0)
    with pytest.raises(QueueFullError):
        queue.offer([make_alert("f2"), make_alert("f3")], 1.0)
    assert queue.backlog().num_waiting == 1
    assert queue.offer([make_alert("f1")], 1.0) == [False]
    assert queue.offer([make_alert("f2")], 2.0) == [True]


def test_a_full_disk_accepts_nothing_and_the_queue_survives(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    (pages,) = queue._connection.execute("PRAGMA page_count").fetchone()
    queue._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    queue.offer([make_alert("first")], 0.0)
    with pytest.raises(sqlite3.OperationalError, match="full"):
        queue.offer([make_alert(f"f{number}") for number in range(1000)], 1.0)
    assert [item.alert.fingerprint for item in queue.due(2.0)] == ["first"]
    queue._connection.execute("PRAGMA max_page_count = 100000")
    assert queue.offer([make_alert("room-again")], 5000.0) == [True]


def test_old_delivered_alerts_are_removed_and_waiting_ones_are_not(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    queue.offer([make_alert("old"), make_alert("waiting")], 0.0)
    (old,) = (item for item in queue.due(0.0) if item.alert.fingerprint == "old")
    queue.mark_delivered(old.key, "run", 1.0)
    assert queue.forget_delivered(50.0) == 0
    assert queue.forget_delivered(100.0) == 1
    assert [item.alert.fingerprint for item in queue.due(100.0)] == ["waiting"]


UNREADABLE = {
    "another release": b'{"version": 7}',
    "a field more": b'{"fingerprint": "f", "model": "desk", "name": "a", "signal": "b", "severity": "high"}',
    "cut off": b'{"fingerprint": "f", "mod',
    "empty": b"",
    "null": b"null",
    "bytes that are no text": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_row_that_cannot_be_read_is_parked_and_counted_and_delays_no_other(
    tmp_path: Path, make_alert: MakeAlert, text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    queue.offer([make_alert("old")], 0.0)
    queue._connection.execute("UPDATE alerts SET alert = CAST(? AS TEXT)", (text,))
    queue.offer([make_alert("new")], 1.0)
    assert [item.alert.fingerprint for item in queue.due(2.0, 1)] == ["new"]
    assert (queue.backlog().num_waiting, queue.backlog().num_parked) == (1, 1)
    assert "is parked" in caplog.text
    assert queue.offer([make_alert("old")], 3.0) == [True]  # raised again, it is taken in today's form
    queue.close()
    again = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    assert (again.backlog().num_waiting, again.backlog().num_parked) == (2, 1)


def test_a_parked_row_waits_again_once_a_release_can_read_it(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    queue.offer([make_alert()], 0.0)
    (item,) = queue.due(0.0)
    queue._connection.execute("UPDATE alerts SET alert = '{}'")
    assert queue.due(0.0) == []
    queue._connection.execute("UPDATE parked SET alert = ?", (item.alert.model_dump_json(),))
    queue.close()
    again = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    assert again.due(0.0) == [item]
    assert again.backlog().num_parked == 0


def test_a_queue_of_an_older_release_is_read(tmp_path: Path, make_alert: MakeAlert) -> None:
    queue = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    queue.offer([make_alert()], 0.0)
    queue._connection.executescript(
        "DROP TABLE parked; DROP INDEX fewest_attempts_first;"
        "CREATE INDEX waiting ON alerts (next_attempt_at) WHERE delivered_at IS NULL;"
    )
    queue.close()
    again = AlertQueue(tmp_path / "q.db", cooldown_seconds=60)
    assert (len(again.due(0.0)), again.backlog().num_parked) == (1, 0)


def test_a_file_that_is_not_a_queue_is_an_explained_error(tmp_path: Path) -> None:
    (tmp_path / "q.db").write_text("not a database, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="alert queue"):
        AlertQueue(tmp_path / "q.db", cooldown_seconds=60)


@settings(max_examples=40)
@given(
    events=st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)), max_size=40),
    cooldown=st.integers(1, 60),
)
def test_one_alert_of_each_fingerprint_is_accepted_per_cool_down(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, int]], cooldown: int
) -> None:
    queue = AlertQueue(tmp_path_factory.mktemp("queue") / "q.db", cooldown_seconds=cooldown)
    queue._connection.execute("PRAGMA synchronous = OFF")
    make = make_alert_like
    now, taken = 1_000.0, {name: [] for name in "abc"}
    for name, pause in events:
        now += pause
        (accepted,) = queue.offer([make(name)], now)
        earlier: list[float] = taken[name]
        assert accepted == (not earlier or now - earlier[-1] >= cooldown)
        if accepted:
            earlier.append(now)
    keys = [item.key for item in queue.due(now)]
    assert len(keys) == len(set(keys)) == sum(map(len, taken.values()))
    queue.close()


def make_alert_like(fingerprint: str) -> Alert:
    times = {"starts_at": "2026-05-01T06:00Z", "window_start": "2026-05-01T00:00Z", "window_end": "2026-05-01T06:00Z"}
    return Alert.model_validate({"fingerprint": fingerprint, "model": "desk", "name": "a", "signal": "b", **times})


CHILD = """
import json, os, signal, sys
from pathlib import Path
from tasks.alerts.queue import AlertQueue
from tasks.contracts.alerts import Alert

folder = Path(sys.argv[1])
alert = Alert.model_validate_json(sys.argv[2])

def append(name, line):
    with (folder / name).open("a") as file:
        file.write(line + "\\n")

def work(kill_at):
    steps = 0
    def step(_=None):
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
    queue = AlertQueue(folder / "q.db", cooldown_seconds=1e9)
    queue._connection.execute("PRAGMA synchronous = OFF")  # a kill, unlike a power cut, loses nothing that was written
    queue._connection.set_trace_callback(step)  # before every SQL statement
    if queue.offer([alert], 1000.0) == [True]:
        append("taken", "now")
    append("answered", "202")
    step()
    for item in queue.due(1000.0):
        append("created", item.key)
        step()
        queue.mark_delivered(item.key, "run", 1001.0)
    step()
    return steps

kill_at = 1
while True:
    for name in os.listdir(folder):
        os.unlink(folder / name)
    pid = os.fork()
    if pid == 0:
        work(kill_at)
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] != 0
    answered = (folder / "answered").exists()
    if killed:  # a new process: does it find what was answered?
        waiting = AlertQueue(folder / "q.db", cooldown_seconds=1e9)
        kept = waiting.backlog().num_waiting or waiting._connection.execute("SELECT count(*) FROM alerts").fetchone()[0]
        waiting.close()
        lost = answered and not kept
        pid = os.fork()
        if pid == 0:  # the sender repeats; delivery goes on
            work(0)
            os._exit(0)
        os.waitpid(pid, 0)
    else:
        lost = False
    keys = (folder / "created").read_text().split()
    print(json.dumps({"kill_at": kill_at, "killed": killed, "lost": lost, "keys": keys}), flush=True)
    if not killed:
        break
    kill_at += 1
"""


def test_a_kill_between_any_two_steps_loses_nothing_and_makes_one_run(tmp_path: Path, make_alert: MakeAlert) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD), str(tmp_path), make_alert().model_dump_json()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    tries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["killed"] for entry in tries] == [True] * (len(tries) - 1) + [False]
    assert len(tries) >= 10
    assert not any(entry["lost"] for entry in tries)
    assert all(len(set(entry["keys"])) == 1 for entry in tries), tries
    assert any(len(entry["keys"]) == 2 for entry in tries), "a kill after the run and before the note repeats the same key"
