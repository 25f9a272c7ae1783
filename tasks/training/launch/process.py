"""One trainer process, or several under PyTorch's launcher: started, followed through its progress file, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tasks import WAITING_THREADS
from tasks.core.processes import start_guarded, stop_group
from tasks.core.storage import write_file_atomically
from tasks.training.launch.protocol import EXIT_STOPPED, TrainerEvent, TrainerReport, TrainerSpec
from tasks.training.launch.work_folder import cut_torn_line, read_new_lines, read_report

OnEvent = Callable[[TrainerEvent], None]

_POLL_SECONDS = 0.2
_STOP_GRACE_SECONDS = 5.0
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    # The launcher of several processes loads PyTorch before this project.
    **WAITING_THREADS,
    # glibc gives large blocks back to the kernel after every use, and the kernel has to zero their pages again.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "67108864",
}
# A gathered layer is given back at once. On the heap each would leave a hole, and a process with half of the weights grew
# larger than one with all of them (measured with 135M parameters).
_SHARDED_ENVIRONMENT = {**ENVIRONMENT, "MALLOC_MMAP_THRESHOLD_": "1048576"}


@dataclass(frozen=True)
class Ending:
    """How one trainer process ended: as text, with its report if it left one."""

    text: str
    report: TrainerReport | None = None
    killed: bool = False


class ProgressRelay:
    """Passes each step and evaluation on once, although a resumed trainer reports some of them again.

    Args:
        on_event: Called with every new step, evaluation and phase.
        earlier: The events that earlier processes reported.

    Attributes:
        place: How far the present process has come. Steps that are reported again count too: else a trainer that is killed a
            second time, before it is as far as the first, would seem to end where the first did.
    """

    def __init__(self, on_event: OnEvent, earlier: Iterable[TrainerEvent]) -> None:
        self._on_event = on_event
        self.place = "start"
        self._last_steps: dict[str, int] = {}
        for event in earlier:
            self._last_steps[event.kind] = max(event.step, self._last_steps.get(event.kind, -1))

    @property
    def last_step(self) -> int:
        """The furthest training step reported."""
        return self._last_steps.get("step", 0)

    def __call__(self, line: str) -> None:
        """Reads one line of the progress file."""
        event = TrainerEvent.model_validate_json(line)
        if event.kind == "alive":
            return
        self.place = f"{event.kind} {event.phase} {event.step}"
        if event.kind in ("step", "evaluation"):
            if event.step <= self._last_steps.get(event.kind, -1):
                return
            self._last_steps[event.kind] = event.step
        self._on_event(event)


def run_trainer(spec: TrainerSpec, work: Path, relay: ProgressRelay, worker: str) -> Ending:
    """Starts a trainer on a specification and follows it to its end."""
    (work / "report.json").unlink(missing_ok=True)
    relay.place = "start"
    progress = work / "progress.jsonl"
    cut_torn_line(progress)
    write_file_atomically(work / "spec.json", spec.model_dump_json(indent=2).encode())
    module, arguments = worker, [str(work / "spec.json")]
    num_processes = _num_processes(spec)
    if num_processes > 1:
        launcher = ["--standalone", "--nproc_per_node", str(num_processes), "-m", worker]
        module, arguments = "torch.distributed.run", [*launcher, *arguments]
    config = spec.method.config
    with (work / "trainer.log").open("ab") as log:
        environment = {**(ENVIRONMENT if config.sharding == "none" else _SHARDED_ENVIRONMENT), **os.environ}
        process = start_guarded(module, arguments, environment=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            silent = _follow(process, progress, relay, config.silence_timeout_seconds)
        finally:
            code = stop_group(process, grace_seconds=_STOP_GRACE_SECONDS)
    if silent:
        return Ending(f"was silent for {config.silence_timeout_seconds:g} s")
    report = read_report(work)
    if report is not None and report.outcome != "stopped":
        return Ending(report.detail or f"ended ({report.outcome})", report)
    if code == EXIT_STOPPED:
        return Ending("stopped on request")
    return Ending("was killed" if code == -signal.SIGKILL else f"exited with code {code}", killed=code == -signal.SIGKILL)


def _num_processes(spec: TrainerSpec) -> int:
    """The number of processes to start; one alone makes the plan, unless no device holds the whole model."""
    if spec.method.config.sharding != "none":
        return spec.method.config.num_processes
    return spec.plan.num_processes if spec.plan is not None and not spec.plan_only else 1


def _follow(process: subprocess.Popen[bytes], progress: Path, relay: ProgressRelay, timeout_seconds: float) -> bool:
    """Relays events until the process ends; True when it was silent for too long."""
    last_event_at, offset = time.monotonic(), progress.stat().st_size if progress.exists() else 0
    while True:
        running = process.poll() is None
        lines, offset = read_new_lines(progress, offset)
        for line in lines:
            last_event_at = time.monotonic()
            relay(line)
        if not running:
            return False
        if time.monotonic() - last_event_at > timeout_seconds:
            return True
        time.sleep(_POLL_SECONDS)
