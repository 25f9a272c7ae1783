"""Attempts at one training until a trainer process reaches its end.

A trainer may run out of memory, crash, hang or be killed. Each attempt is a fresh process that resumes from the newest
complete checkpoint. After running out of memory, the next attempt follows a plan with less of it (see
:func:`~tasks.training.plan.planning.next_oom_fallback`). A process that is killed twice at the same place counts as out of
memory, because that is how the kernel ends one on a CPU. When the launcher itself is killed, the kernel kills the trainer
too, and the same command finds the work folder again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.contracts.training import TrainingPlan
from tasks.core import errors
from tasks.core.errors import OutOfMemoryError, PerennialError, TrainingError
from tasks.core.scratch import own_folder
from tasks.training.launch.process import OnEvent, ProgressRelay, run_trainer
from tasks.training.launch.protocol import Fault, TrainerEvent, TrainerReport, TrainerSpec
from tasks.training.launch.work_folder import AttemptLog, locked, read_curve, read_plan, read_report, write_plan
from tasks.training.plan.planning import next_oom_fallback

WORKER = "tasks.training.trainer.worker"
"""The program of a trainer process."""


@dataclass(frozen=True)
class SupervisedRun:
    """How training went, over all attempts."""

    report: TrainerReport
    num_attempts: int
    history: tuple[str, ...]
    curve: tuple[TrainerEvent, ...] = ()


def supervise(spec: TrainerSpec, on_event: OnEvent, *, worker: str = WORKER) -> SupervisedRun:
    """Trains in child processes until done; the adapter is then in ``<work_dir>/adapter``.

    Args:
        spec: What to train; the same training must always have the same work folder.
        on_event: Called with every new step, evaluation and phase, each step once.
        worker: The module that is the trainer process.

    Raises:
        OutOfMemoryError: Every fallback ran out of memory.
        TrainingError: Every allowed attempt failed, or two failed in the same way at the same place.
        PerennialError: The trainer refused its data or settings, with its own error.
    """
    work = own_folder(Path(spec.work_dir))
    with locked(work):
        attempts = AttemptLog(work)
        report = read_report(work)
        if report is None or report.outcome != "done" or not (work / "adapter").is_dir():
            relay = ProgressRelay(on_event, read_curve(work))
            if spec.method.config.num_processes != 1 and read_plan(work) is None:
                _plan_first(spec, work, attempts, relay, worker)
            report = _train(spec, work, attempts, relay, worker)
        return SupervisedRun(report, attempts.num_attempts, attempts.history, read_curve(work))


def make_plan(spec: TrainerSpec, on_event: OnEvent) -> TrainingPlan:
    """The plan that training would follow, made in a child process, with a timed step and nothing trained."""
    work = own_folder(Path(spec.work_dir))
    return _plan_first(spec, work, AttemptLog(work), ProgressRelay(on_event, ()), WORKER)


def _train(spec: TrainerSpec, work: Path, attempts: AttemptLog, relay: ProgressRelay, worker: str) -> TrainerReport:
    """Attempts until one reaches its end."""
    num_failures, previous = 0, ("", "")
    while True:
        ending = run_trainer(spec.model_copy(update={"plan": read_plan(work)}), work, relay, worker)
        attempts.count()
        report, place = ending.report, (ending.text, relay.place)
        if report is not None and report.outcome == "done":
            return report
        if report is not None and report.fault is not None:
            raise _as_error(report.fault)
        repeated, previous = place == previous, place
        out_of_memory = report is not None and report.outcome == "out_of_memory"
        # Before it has a plan, there is nothing to fall back from.
        if out_of_memory or (ending.killed and repeated and read_plan(work) is not None):
            _fall_back(work, spec, attempts)
            continue
        num_failures += 1
        if num_failures == spec.method.config.max_attempts or (report is not None and repeated):
            raise TrainingError(
                f"training in {work}",
                f"a trainer that {ending.text} at step {relay.last_step}, after {num_failures} failed attempts",
                "one that reaches its end",
                f"Read {work / 'trainer.log'}; running again resumes from the last checkpoint.",
            )
        attempts.add(f"the trainer {ending.text} at step {relay.last_step}; it resumes from its last checkpoint")


def _plan_first(spec: TrainerSpec, work: Path, attempts: AttemptLog, relay: ProgressRelay, worker: str) -> TrainingPlan:
    while True:
        ending = run_trainer(spec.model_copy(update={"plan": read_plan(work), "plan_only": True}), work, relay, worker)
        report = ending.report
        if report is None or report.outcome != "out_of_memory" or read_plan(work) is None:
            break
        _fall_back(work, spec, attempts)
    if report is not None and report.fault is not None:
        raise _as_error(report.fault)
    if report is None or report.plan is None:
        raise TrainingError(
            f"planning in {work}", f"a process that {ending.text}", "a plan", f"Read {work / 'trainer.log'}."
        )
    write_plan(work, report.plan)
    return report.plan


def _fall_back(work: Path, spec: TrainerSpec, attempts: AttemptLog) -> None:
    """Replaces the plan by the next one that needs less memory."""
    plan, allow_shorter_length = read_plan(work), spec.method.config.allow_shorter_length
    fallback = next_oom_fallback(plan, allow_shorter_length=allow_shorter_length) if plan else None
    if fallback is None:
        raise OutOfMemoryError(
            f"training in {work}",
            "out of memory in every fallback: smallest micro-batch, gradient checkpointing"
            + (", shortest length" if allow_shorter_length else ""),
            "a model and rows that fit",
            "Use quantization: nf4, a smaller max_length or base model, allow_shorter_length, or a larger device.",
        )
    lower, change = fallback
    attempts.add(f"out of memory; next attempt with {change}")
    write_plan(work, lower)


def _as_error(fault: Fault) -> PerennialError:
    kind = getattr(errors, fault.type, TrainingError)
    error: PerennialError = kind(fault.where, fault.found, fault.expected, fault.todo)
    return error
