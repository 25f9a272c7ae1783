"""The parent of a trainer process: starts it, follows it, and starts it again when it dies.

A trainer may run out of memory, crash, hang or be killed; each attempt is a fresh process that resumes from the newest
complete checkpoint. After running out of memory the next attempt goes one rung down the ladder (smaller micro-batch with
more accumulation, gradient checkpointing, shorter length where allowed). A process killed twice at the same place counts
as out of memory: that is how the kernel ends one on a CPU. When the parent itself is killed, the kernel takes the trainer
along, and the same command finds the work folder again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from tasks import errors
from tasks.contracts import TrainingPlan
from tasks.errors import OutOfMemoryError, PerennialError, TrainingError
from tasks.processes import start_guarded, stop_group
from tasks.storage import write_file_atomically
from tasks.training.planning import next_rung
from tasks.training.specification import EXIT_STOPPED, TrainerEvent, TrainerReport, TrainerSpec

logger = logging.getLogger(__name__)

OnEvent = Callable[[TrainerEvent], None]

_WORKER = "tasks.training.worker"
_POLL_SECONDS = 0.2
_STOP_GRACE_SECONDS = 5.0
_ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # glibc gives large blocks back to the kernel after every use, which then has to hand out zeroed pages again.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}


@dataclass
class SupervisedRun:
    """How training went, over all attempts."""

    report: TrainerReport
    num_attempts: int
    history: tuple[str, ...]
    curve: tuple[TrainerEvent, ...] = field(default=())


def supervise(spec: TrainerSpec, on_event: OnEvent) -> SupervisedRun:
    """Trains in child processes until done; the adapter then lies in ``<work_dir>/adapter``.

    Args:
        spec: What to train; its work folder must be the same whenever the same training is asked for.
        on_event: Told every new step, evaluation and phase, each step once.

    Raises:
        OutOfMemoryError: Every rung of the ladder was tried.
        TrainingError: Every allowed attempt failed.
        PerennialError: The trainer refused its data or settings, as it says.
    """
    work = Path(spec.work_dir)
    work.mkdir(parents=True, exist_ok=True)
    with _locked(work):
        ledger = _Ledger(work)
        finished = _read_report(work)
        if finished is not None and finished.outcome == "done" and (work / "adapter").is_dir():
            return SupervisedRun(finished, ledger.num_attempts, ledger.history, _curve(work))
        told = _Relay(on_event)
        for attempt in range(1, spec.method.config.max_attempts + 1):
            plan = _read_plan(work)
            report, ending = _run_once(spec.model_copy(update={"plan": plan}), work, told)
            if report is not None and report.outcome in ("done", "planned"):
                ledger.note(None)
                return SupervisedRun(report, ledger.num_attempts, ledger.history, _curve(work))
            if report is not None and report.fault is not None:
                raise _as_error(report)
            no_memory = report is not None and report.outcome == "out_of_memory"
            stuck = ending == "killed" and ledger.last == (ending, told.last_step)
            ledger.note((ending, told.last_step))
            if no_memory or stuck:
                _step_down(work, spec, ledger)
            else:
                ledger.tell(f"attempt {attempt} {ending} at step {told.last_step}; resumed from the last checkpoint")
        raise TrainingError(
            f"training in {work}",
            f"{spec.method.config.max_attempts} attempts that ended early, the last one {ending} at step {told.last_step}",
            "one that reaches its end",
            f"Read {work / 'trainer.log'}; running again resumes from the last checkpoint.",
        )


def discard(work: Path) -> None:
    """Removes a work folder whose result is stored."""
    shutil.rmtree(work, ignore_errors=True)


# ----------------------------------------------------------------------------------------------------------- one process


def _run_once(spec: TrainerSpec, work: Path, told: _Relay) -> tuple[TrainerReport | None, str]:
    """One trainer process to its end: its report, if it left one, and in a word how it ended."""
    (work / "report.json").unlink(missing_ok=True)
    progress = work / "progress.jsonl"
    _cut_torn_line(progress)
    write_file_atomically(work / "spec.json", spec.model_dump_json(indent=2).encode())
    module, arguments = _WORKER, [str(work / "spec.json")]
    num_processes = spec.plan.num_processes if spec.plan else spec.method.config.num_processes
    if num_processes > 1:
        launcher = ["--standalone", "--nproc_per_node", str(num_processes), "-m", _WORKER]
        module, arguments = "torch.distributed.run", [*launcher, *arguments]
    environment = {**_ENVIRONMENT, **os.environ}
    with (work / "trainer.log").open("ab") as log:
        process = start_guarded(module, arguments, environment=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            silent = _follow(process, progress, told, spec.method.config.silence_timeout_seconds)
        finally:
            code = stop_group(process, grace_seconds=_STOP_GRACE_SECONDS)
    report = _read_report(work)
    if silent:
        return None, f"silent for {spec.method.config.silence_timeout_seconds:g} s"
    if report is None or report.outcome == "stopped":
        return (
            None,
            "stopped" if code == EXIT_STOPPED else "killed" if code == -signal.SIGKILL else f"exited with code {code}",
        )
    return report, report.outcome.replace("_", " ")


def _follow(process: subprocess.Popen[bytes], progress: Path, told: _Relay, timeout_seconds: float) -> bool:
    """Relays events until the process ends; True when it was silent for too long."""
    heard_at, offset = time.monotonic(), progress.stat().st_size if progress.exists() else 0
    while True:
        running = process.poll() is None
        lines, offset = _new_lines(progress, offset)
        for line in lines:
            heard_at = time.monotonic()
            told(line)
        if not running:
            return False
        if time.monotonic() - heard_at > timeout_seconds:
            return True
        time.sleep(_POLL_SECONDS)


def _new_lines(path: Path, offset: int) -> tuple[list[str], int]:
    if not path.exists():
        return [], offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode().splitlines(), offset + len(whole)


def _cut_torn_line(path: Path) -> None:
    """Removes what a killed writer left after the last complete line."""
    if path.exists():
        data = path.read_bytes()
        os.truncate(path, data.rfind(b"\n") + 1)


class _Relay:
    """Hands each step and evaluation on once, although a resumed trainer tells some of them again."""

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._seen: dict[str, int] = {}

    @property
    def last_step(self) -> int:
        """The furthest training step told."""
        return self._seen.get("step", 0)

    def __call__(self, line: str) -> None:
        event = TrainerEvent.model_validate_json(line)
        if event.kind in ("step", "evaluation"):
            if event.step <= self._seen.get(event.kind, -1):
                return
            self._seen[event.kind] = event.step
        if event.kind != "alive":
            self._on_event(event)


# --------------------------------------------------------------------------------------------------------------- records


class _Ledger:
    """What happened over the attempts of one work folder; outlives this process."""

    def __init__(self, work: Path) -> None:
        self._path = work / "attempts.json"
        try:
            record = json.loads(self._path.read_bytes())
        except (OSError, ValueError):
            record = {}
        self.num_attempts: int = record.get("num_attempts", 0)
        self.history: tuple[str, ...] = tuple(record.get("history", ()))
        self.last: tuple[str, int] | None = None

    def note(self, ending: tuple[str, int] | None) -> None:
        """Counts an attempt."""
        self.num_attempts += 1
        self.last = ending
        self._write()

    def tell(self, what: str) -> None:
        """Adds a line to the history, and to the log."""
        logger.warning("training: %s", what)
        self.history = (*self.history, what)
        self._write()

    def _write(self) -> None:
        record = {"num_attempts": self.num_attempts, "history": self.history}
        write_file_atomically(self._path, json.dumps(record, indent=2).encode())


def _step_down(work: Path, spec: TrainerSpec, ledger: _Ledger) -> None:
    plan = _read_plan(work)
    lower = next_rung(plan, allow_shorter_length=spec.method.config.allow_shorter_length) if plan else None
    if lower is None:
        raise OutOfMemoryError(
            f"training in {work}",
            "out of memory on every rung: smallest micro-batch, gradient checkpointing"
            + (", shortest length" if spec.method.config.allow_shorter_length else ""),
            "a model and rows that fit",
            "Use quantization: nf4, a smaller max_length or base model, allow_shorter_length, or a larger device.",
        )
    ledger.tell(f"out of memory; next attempt with {lower[1]}")
    write_file_atomically(work / "plan.json", lower[0].model_dump_json(indent=2).encode())


def _read_plan(work: Path) -> TrainingPlan | None:
    try:
        return TrainingPlan.model_validate_json((work / "plan.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _read_report(work: Path) -> TrainerReport | None:
    try:
        return TrainerReport.model_validate_json((work / "report.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _curve(work: Path) -> tuple[TrainerEvent, ...]:
    """The steps and evaluations in order; of a step told twice, the last."""
    events: dict[tuple[int, str], TrainerEvent] = {}
    for line in _new_lines(work / "progress.jsonl", 0)[0]:
        event = TrainerEvent.model_validate_json(line)
        if event.kind in ("step", "evaluation"):
            events[event.step, event.kind] = event
    return tuple(events[key] for key in sorted(events, key=lambda key: (key[0], key[1] != "step")))


def _as_error(report: TrainerReport) -> PerennialError:
    assert report.fault is not None
    fault = report.fault
    kind = getattr(errors, fault.type, TrainingError)
    error: PerennialError = kind(fault.where, fault.found, fault.expected, fault.todo)
    return error


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """Holds the work folder for this process, so that the same training never runs twice at once."""
    with (work / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(
                f"training in {work}",
                "another process that does the same training",
                "one at a time",
                "Wait for the other run; its result will be found in the cache.",
            ) from error
        yield
