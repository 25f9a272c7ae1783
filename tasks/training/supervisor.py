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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tasks import WAITING_THREADS
from tasks.contracts.training import TrainingPlan
from tasks.core import errors
from tasks.core.errors import OutOfMemoryError, PerennialError, TrainingError
from tasks.core.processes import start_guarded, stop_group
from tasks.core.scratch import own_folder
from tasks.core.storage import write_file_atomically
from tasks.training.planning import next_rung
from tasks.training.specification import EXIT_STOPPED, Fault, TrainerEvent, TrainerReport, TrainerSpec

logger = logging.getLogger(__name__)

OnEvent = Callable[[TrainerEvent], None]

_WORKER = "tasks.training.worker"
_POLL_SECONDS = 0.2
_STOP_GRACE_SECONDS = 5.0
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # The launcher of several processes loads PyTorch before this project.
    **WAITING_THREADS,
    # glibc gives large blocks back to the kernel after every use, which then has to hand out zeroed pages again.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
# A layer that was gathered is given back at once: kept on the heap, each leaves a hole, and a process with half of the
# weights grew larger than one with all of them (measured with 135M parameters).
_SHARDED_ENVIRONMENT = {**ENVIRONMENT, "MALLOC_MMAP_THRESHOLD_": "1048576"}


@dataclass(frozen=True)
class SupervisedRun:
    """How training went, over all attempts."""

    report: TrainerReport
    num_attempts: int
    history: tuple[str, ...]
    curve: tuple[TrainerEvent, ...] = ()


@dataclass(frozen=True)
class _Ending:
    """How one trainer process ended: in words, with its report if it left one."""

    words: str
    report: TrainerReport | None = None
    killed: bool = False


def supervise(spec: TrainerSpec, on_event: OnEvent, *, worker: str = "tasks.training.worker") -> SupervisedRun:
    """Trains in child processes until done; the adapter then lies in ``<work_dir>/adapter``.

    Args:
        spec: What to train; its work folder must be the same whenever the same training is asked for.
        on_event: Told every new step, evaluation and phase, each step once.
        worker: The module that is the trainer process.

    Raises:
        OutOfMemoryError: Every rung of the ladder was tried.
        TrainingError: Every allowed attempt failed, or one failed twice in the same way at the same place.
        PerennialError: The trainer refused its data or settings, as it says.
    """
    work = own_folder(Path(spec.work_dir))
    with _locked(work):
        ledger = _Ledger(work)
        report = _read_report(work)
        if report is None or report.outcome != "done" or not (work / "adapter").is_dir():
            told = _Relay(on_event, read_curve(work))
            if spec.method.config.num_processes != 1 and read_plan(work) is None:
                _plan_first(spec, work, ledger, told, worker)
            report = _train(spec, work, ledger, told, worker)
        return SupervisedRun(report, ledger.num_attempts, ledger.history, read_curve(work))


def make_plan(spec: TrainerSpec, on_event: OnEvent) -> TrainingPlan:
    """The plan that training would follow, made in a child process of its own, with a timed step and nothing trained."""
    work = own_folder(Path(spec.work_dir))
    return _plan_first(spec, work, _Ledger(work), _Relay(on_event, ()), _WORKER)


def discard(work: Path) -> None:
    """Removes a work folder whose result is stored."""
    shutil.rmtree(work, ignore_errors=True)


def _train(spec: TrainerSpec, work: Path, ledger: _Ledger, told: _Relay, worker: str) -> TrainerReport:
    """Attempts until one reaches its end."""
    failures, previous = 0, ("", "")
    while True:
        ending = _run_once(spec.model_copy(update={"plan": read_plan(work)}), work, told, worker)
        ledger.count()
        report, place = ending.report, (ending.words, told.place)
        if report is not None and report.outcome == "done":
            return report
        if report is not None and report.fault is not None:
            raise _as_error(report.fault)
        repeated, previous = place == previous, place
        out_of_memory = report is not None and report.outcome == "out_of_memory"
        # Before it has a plan, there is nothing to step down from.
        if out_of_memory or (ending.killed and repeated and read_plan(work) is not None):
            _step_down(work, spec, ledger)
            continue
        failures += 1
        if failures == spec.method.config.max_attempts or (report is not None and repeated):
            raise TrainingError(
                f"training in {work}",
                f"a trainer that {ending.words} at step {told.last_step}, after {failures} failed attempts",
                "one that reaches its end",
                f"Read {work / 'trainer.log'}; running again resumes from the last checkpoint.",
            )
        ledger.tell(f"the trainer {ending.words} at step {told.last_step}; it resumes from its last checkpoint")


def _plan_first(spec: TrainerSpec, work: Path, ledger: _Ledger, told: _Relay, worker: str) -> TrainingPlan:
    while True:
        ending = _run_once(spec.model_copy(update={"plan": read_plan(work), "plan_only": True}), work, told, worker)
        report = ending.report
        if report is None or report.outcome != "out_of_memory" or read_plan(work) is None:
            break
        _step_down(work, spec, ledger)
    if report is not None and report.fault is not None:
        raise _as_error(report.fault)
    if report is None or report.plan is None:
        raise TrainingError(
            f"planning in {work}", f"a process that {ending.words}", "a plan", f"Read {work / 'trainer.log'}."
        )
    write_file_atomically(work / "plan.json", report.plan.model_dump_json(indent=2).encode())
    return report.plan


# ----------------------------------------------------------------------------------------------------------- one process


def _run_once(spec: TrainerSpec, work: Path, told: _Relay, worker: str) -> _Ending:
    """One trainer process, started and followed to its end."""
    (work / "report.json").unlink(missing_ok=True)
    told.place = "start"
    progress = work / "progress.jsonl"
    _cut_torn_line(progress)
    write_file_atomically(work / "spec.json", spec.model_dump_json(indent=2).encode())
    module, arguments = worker, [str(work / "spec.json")]
    num_processes = _num_processes(spec)
    if num_processes > 1:
        launcher = ["--standalone", "--nproc_per_node", str(num_processes), "-m", worker]
        module, arguments = "torch.distributed.run", [*launcher, *arguments]
    with (work / "trainer.log").open("ab") as log:
        environment = {**(ENVIRONMENT if spec.method.config.sharding == "none" else _SHARDED_ENVIRONMENT), **os.environ}
        process = start_guarded(module, arguments, environment=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            silent = _follow(process, progress, told, spec.method.config.silence_timeout_seconds)
        finally:
            code = stop_group(process, grace_seconds=_STOP_GRACE_SECONDS)
    report = _read_report(work)
    if silent:
        return _Ending(f"was silent for {spec.method.config.silence_timeout_seconds:g} s")
    if report is not None and report.outcome != "stopped":
        return _Ending(report.detail or f"ended ({report.outcome})", report)
    if code == EXIT_STOPPED:
        return _Ending("was asked to stop")
    return _Ending("was killed" if code == -signal.SIGKILL else f"exited with code {code}", killed=code == -signal.SIGKILL)


def _num_processes(spec: TrainerSpec) -> int:
    """How many to start; one alone makes the plan, unless no device holds the whole model."""
    if spec.method.config.sharding != "none":
        return spec.method.config.num_processes
    return spec.plan.num_processes if spec.plan is not None and not spec.plan_only else 1


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
    """Hands each step and evaluation on once, although a resumed trainer tells some of them again.

    Attributes:
        place: How far the present process has come; a step that is told again counts too, or a trainer that is killed for a
            second time before it is as far as the first would seem to end where that one did.
    """

    def __init__(self, on_event: OnEvent, told_before: Iterable[TrainerEvent]) -> None:
        self._on_event = on_event
        self.place = "start"
        self._seen: dict[str, int] = {}
        for event in told_before:
            self._seen[event.kind] = max(event.step, self._seen.get(event.kind, -1))

    @property
    def last_step(self) -> int:
        """The furthest training step told."""
        return self._seen.get("step", 0)

    def __call__(self, line: str) -> None:
        event = TrainerEvent.model_validate_json(line)
        if event.kind != "alive":
            self.place = f"{event.kind} {event.phase} {event.step}"
        if event.kind in ("step", "evaluation"):
            if event.step <= self._seen.get(event.kind, -1):
                return
            self._seen[event.kind] = event.step
        if event.kind != "alive":
            self._on_event(event)


# --------------------------------------------------------------------------------------------------------------- records


class _Ledger:
    """How many attempts one work folder has seen, and what went wrong in them; outlives this process."""

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

    def tell(self, what: str) -> None:
        """Adds a line to the history, and to the log."""
        logger.warning("training: %s", what)
        self.history = (*self.history, what)
        self._write()

    def _write(self) -> None:
        record = {"num_attempts": self.num_attempts, "history": self.history}
        write_file_atomically(self._path, json.dumps(record, indent=2).encode())


def _step_down(work: Path, spec: TrainerSpec, ledger: _Ledger) -> None:
    plan = read_plan(work)
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


def read_plan(work: Path) -> TrainingPlan | None:
    """The plan that the trainer in a work folder follows, or None before it has one."""
    try:
        return TrainingPlan.model_validate_json((work / "plan.json").read_bytes())
    except (OSError, ValidationError):
        return None


def _read_report(work: Path) -> TrainerReport | None:
    try:
        return TrainerReport.model_validate_json((work / "report.json").read_bytes())
    except (OSError, ValidationError):
        return None


def read_curve(work: Path) -> tuple[TrainerEvent, ...]:
    """The steps and evaluations told in a work folder, in order; of a step told twice, the last."""
    events: dict[tuple[int, str], TrainerEvent] = {}
    for line in _new_lines(work / "progress.jsonl", 0)[0]:
        event = TrainerEvent.model_validate_json(line)
        if event.kind in ("step", "evaluation"):
            events[event.step, event.kind] = event
    return tuple(events[key] for key in sorted(events, key=lambda key: (key[0], key[1] != "step")))


def _as_error(fault: Fault) -> PerennialError:
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
