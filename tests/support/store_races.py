"""Races and kills on a store: what several runs write at once, and what a killed one leaves.

In a round of a race four processes do the same thing at the same moment, and all of it must be there afterwards. In a
round of kills a process that writes records, data sets and folders is killed with SIGKILL somewhere in between: what it had
written to the end must be there, nothing may look whole that is not, and the next writer must get through.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tasks.contracts.references import FolderRef
from tasks.contracts.run import BusinessPeriod
from tasks.core.storage import Store, sha256_of
from tests.support.object_store import object_store

NUM_PROCESSES = 4
_LONGEST_LIFE_SECONDS = 0.12


@dataclass(frozen=True)
class Place:
    """Where stores of the rounds lie, and a folder for files beside them."""

    name: str
    root: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def store(self, name: str) -> Store:
        os.environ.update(self.environment)
        return Store(f"{self.root}/{name}")


@contextmanager
def places(folder: Path, names: tuple[str, ...] = ("folder", "bucket")) -> Iterator[list[Place]]:
    """The kinds of place by name; the bucket's server lives as long as the block."""
    found = []
    if "folder" in names:
        (folder / "folder").mkdir()
        found.append(Place("folder", str(folder / "folder" / "stores"), folder / "folder"))
    if "bucket" not in names:
        yield found
        return
    (folder / "bucket").mkdir()
    with object_store() as environment:
        yield [*found, Place("bucket", "s3://bucket/stores", folder / "bucket", environment)]


# ------------------------------------------------------------------------------------------------------------------ races


def _rows(text: str) -> list[dict[str, Any]]:
    return [{"id": text, "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": text}]}]


def make_folder(path: Path, content: str) -> Path:
    """A folder of a few files, some of them larger than one block, below another."""
    (path / "deep").mkdir(parents=True)
    for number in range(4):
        (path / f"part-{number}").write_bytes(f"{content} {number} ".encode() * 20_000)
    (path / "deep" / "settings.json").write_text(content)
    return path


def choose_first(place: Place, number: int, worker: int) -> str:
    """A first run chooses a frozen set; it returns what it goes on with."""
    store = place.store("race")
    chosen = store.write_rows(_rows(f"{number} {worker}"), kind="messages")
    return store.create_record(f"benchmarks/desk-{number}", chosen).sha256


def check_first(place: Place, number: int, results: list[Any]) -> None:
    pointed = place.store("race").read_pointer(f"benchmarks/desk-{number}")
    assert pointed is not None
    assert set(results) == {pointed.sha256}, f"{len(set(results))} frozen sets"


def import_review(place: Place, number: int, worker: int) -> None:
    """A reviewer brings ten answers back."""
    from tasks.labels.policy import Decision
    from tasks.labels.review import keep_decisions

    answers = {sha256_of(f"{worker} {row}".encode()): Decision("keep", None) for row in range(10)}
    keep_decisions(place.store("race"), f"desk-{number}", answers)


def check_review(place: Place, number: int, results: list[Any]) -> None:
    from tasks.labels.review import read_decisions

    kept = read_decisions(place.store("race"), f"desk-{number}")
    assert len(kept) == 10 * len(results), f"{len(kept)} of {10 * len(results)} answers"


def _with_figure(name: str) -> Callable[[BusinessPeriod | None], BusinessPeriod]:
    def change(known: BusinessPeriod | None) -> BusinessPeriod:
        figures = dict(known.figures) if known else {}
        return BusinessPeriod(period="now", figures={**figures, name: figures.get(name, 0.0) + 1.0})

    return change


def count(place: Place, number: int, worker: int) -> None:
    """A counter that all raise by one, three times."""
    for _ in range(3):
        place.store("race").update_record(f"counters/{number}", BusinessPeriod, _with_figure("all"))


def check_count(place: Place, number: int, results: list[Any]) -> None:
    found = place.store("race").read_record(f"counters/{number}", BusinessPeriod)
    assert found is not None
    assert found.figures["all"] == 3 * len(results), f"{found.figures['all']} of {3 * len(results)}"


def add_model(place: Place, number: int, worker: int) -> str:
    """A first run brings the base model into the store."""
    source = place.folder / f"model-{number}-{worker}"
    return place.store("race").add_folder(make_folder(source, f"model {number}")).model_dump_json()


def check_model(place: Place, number: int, results: list[Any]) -> None:
    assert len(set(results)) == 1
    ref = FolderRef.model_validate_json(results[0])
    place.store("race").fetch_folder(ref, place.folder / f"cache-of-checks-{number}")


def fetch_model(place: Place, number: int, worker: int) -> str:
    """Three fetches one after the other of a folder that nobody has fetched yet."""
    store = place.store("race")
    ref = store.add_folder(make_folder(place.folder / f"fetched-{number}-{worker}", "the same in every round"))
    for _ in range(3):
        folder = store.fetch_folder(ref, place.folder / f"cache-{number}")
    return (folder / "deep" / "settings.json").read_text()


def check_fetched(place: Place, number: int, results: list[Any]) -> None:
    assert set(results) == {"the same in every round"}


RACES: dict[str, tuple[Callable[[Place, int, int], Any], Callable[[Place, int, list[Any]], None]]] = {
    "first choice of a frozen set": (choose_first, check_first),
    "imports of a review": (import_review, check_review),
    "a counter": (count, check_count),
    "base model added": (add_model, check_model),
    "folder fetched": (fetch_model, check_fetched),
}


def _work(place: Place, worker: int, race: str, barrier: Any, orders: Connection) -> None:
    place.store("race")
    act, _ = RACES[race]
    while (number := orders.recv()) is not None:
        barrier.wait()
        try:
            orders.send(("done", act(place, number, worker)))
        except Exception as error:  # whatever it is, the round counts it
            orders.send(("failed", f"{type(error).__name__}: {error}"))


def run_race(place: Place, race: str, rounds: int) -> list[str]:
    """What went wrong in so many rounds of a race; nothing where nothing did."""
    context = _context()
    barrier = context.Barrier(NUM_PROCESSES)
    ends = [context.Pipe() for _ in range(NUM_PROCESSES)]
    workers = [
        context.Process(target=_work, args=(place, number, race, barrier, end), daemon=True)
        for number, (_, end) in enumerate(ends)
    ]
    faults = []
    try:
        for worker in workers:
            worker.start()
        for number in range(rounds):
            for own, _ in ends:
                own.send(number)
            answers = [own.recv() for own, _ in ends]
            failed = [told for kind, told in answers if kind == "failed"]
            try:
                if not failed:
                    RACES[race][1](place, number, [told for _, told in answers])
            except Exception as error:
                failed = [f"{type(error).__name__}: {error}"]
            faults += [f"round {number}: {told}" for told in failed]
    finally:
        for own, _ in ends:
            with suppress(OSError):
                own.send(None)
        for worker in workers:
            worker.join(10)
    return faults


# ------------------------------------------------------------------------------------------------------------------ kills


def _write_until_killed(place: Place, name: str, reports: Connection) -> None:
    store = place.store(name)
    for number in range(10_000):
        source = make_folder(place.folder / name / f"source-{number}", f"{name} {number}")
        if number == 0:
            reports.send(("ready", ""))
        store.update_record("figures", BusinessPeriod, _with_figure(str(number)))
        reports.send(("figure", str(number)))
        rows = store.write_rows(_rows(f"{name} {number}"), kind="messages")
        reports.send(("rows", rows.sha256))
        reports.send(("folder", store.add_folder(source).model_dump_json()))


def run_kills(place: Place, rounds: int, seed: int = 0) -> list[str]:
    """What was lost or torn in so many rounds of kills; nothing where nothing was."""
    context, chance = _context(), random.Random(seed)
    faults = []
    for number in range(rounds):
        name = f"kill-{number}"
        own, end = context.Pipe(duplex=False)
        victim = context.Process(target=_write_until_killed, args=(place, name, end), daemon=True)
        victim.start()
        end.close()
        told = [own.recv()]
        time.sleep(chance.uniform(0, _LONGEST_LIFE_SECONDS))
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        with suppress(EOFError, OSError):
            while True:
                told.append(own.recv())
        try:
            _check_after_kill(place, name, told)
        except Exception as error:
            faults.append(f"round {number}: {type(error).__name__}: {error}")
    return faults


def _check_after_kill(place: Place, name: str, told: list[tuple[str, str]]) -> None:
    store, cache = place.store(name), place.folder / name / "cache"
    figures = store.read_record("figures", BusinessPeriod)
    for kind, what in told:
        if kind == "figure":
            assert figures is not None, "the record is gone"
            assert figures.figures.get(what) == 1.0, f"figure {what} is lost"
        elif kind == "rows":
            assert store.find_dataset(what) is not None, "a data set is lost"
        elif kind == "folder":
            store.fetch_folder(FolderRef.model_validate_json(what), cache)
    # Whatever is there under its own name is whole.
    digests = {path.split("/")[2].partition(".")[0] for path, _, _ in store.walk("objects") if "/." not in path}
    assert all(store.find_dataset(sha256) is not None or place.name == "bucket" for sha256 in digests)
    # And the next writer gets through, with what the killed one was about to write too.
    store.update_record("figures", BusinessPeriod, _with_figure("next"))
    for source in sorted((place.folder / name).glob("source-*"))[-2:]:
        store.fetch_folder(store.add_folder(source), cache)


def _context() -> Any:
    """Processes that begin with the imports done, each with connections of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tasks.core.storage", "tasks.core.storage.buckets", "tasks.labels.review", "s3fs"])
    return context
