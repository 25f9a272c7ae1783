"""The files of one training's work folder that the launcher reads and writes."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from tasks.contracts.training import TrainingPlan
from tasks.core.errors import TrainingError
from tasks.core.storage import Store, write_file_atomically
from tasks.training.launch.protocol import TrainerEvent, TrainerReport

logger = logging.getLogger(__name__)


def work_root(store: Store) -> Path:
    """Where work folders lie: in a local store, else in the embedded folder, which a container has on a volume."""
    return (store.local_path or Path(os.environ.get("PERENNIAL_HOME", ".perennial")).absolute()) / "work"


class AttemptLog:
    """The number of attempts in one work folder, and what went wrong in them; outlives this process."""

    def __init__(self, work: Path) -> None:
        self._path = work / "attempts.json"
        try:
            record = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            record = {}
        self.num_attempts: int = record.get("num_attempts", 0)
        self.history: tuple[str, ...] = tuple(record.get("history", ()))

    def count(self) -> None:
        """Counts an attempt."""
        self.num_attempts += 1
        self._write()

    def add(self, event: str) -> None:
        """Adds a line to the history, and to the log."""
        logger.warning("training: %s", event)
        self.history = (*self.history, event)
        self._write()

    def _write(self) -> None:
        record = {"num_attempts": self.num_attempts, "history": self.history}
        write_file_atomically(self._path, json.dumps(record, indent=2).encode())


def read_plan(work: Path) -> TrainingPlan | None:
    """The plan that the trainer in a work folder follows, or None before it has one."""
    try:
        return TrainingPlan.model_validate_json((work / "plan.json").read_bytes())
    except (OSError, ValidationError):
        return None


def write_plan(work: Path, plan: TrainingPlan) -> None:
    """Writes the plan that the next trainer follows."""
    write_file_atomically(work / "plan.json", plan.model_dump_json(indent=2).encode())


def read_report(work: Path) -> TrainerReport | None:
    """The report of the last trainer, or None when it left none."""
    try:
        return TrainerReport.model_validate_json((work / "report.json").read_bytes())
    except (OSError, ValidationError):
        return None


def read_curve(work: Path) -> tuple[TrainerEvent, ...]:
    """The steps and evaluations reported in a work folder, in order; of a step reported twice, the last."""
    events: dict[tuple[int, str], TrainerEvent] = {}
    for line in read_new_lines(work / "progress.jsonl", 0)[0]:
        event = TrainerEvent.model_validate_json(line)
        if event.kind in ("step", "evaluation"):
            events[event.step, event.kind] = event
    return tuple(events[key] for key in sorted(events, key=lambda key: (key[0], key[1] != "step")))


def read_new_lines(path: Path, offset: int) -> tuple[list[str], int]:
    """The complete lines of a file from a byte offset on, and the offset after them."""
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode().splitlines(), offset + len(whole)


def cut_torn_line(path: Path) -> None:
    """Removes what a killed writer left after the last complete line."""
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)


def discard(work: Path) -> None:
    """Removes a work folder whose result is stored."""
    shutil.rmtree(work, ignore_errors=True)


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Holds the work folder for this process, so that the same training never runs twice at once.

    Raises:
        TrainingError: Another process holds it.
    """
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"training in {work}",
                "another process that runs the same training",
                "one at a time",
                "Wait for the other run; its result will be in the cache.",
            ) from error
        yield
