"""Child processes that never outlive their parent: embedded servers, trainers on a GPU, external tools.

A child leads its own session, so that Ctrl-C in the terminal reaches only the parent, which then ends the whole group. It
also sets a parent-death signal (``PR_SET_PDEATHSIG``), so that the kernel kills it with its parent, even after ``kill -9``,
and no GPU stays busy. The child sets the signal itself before anything else: this module, run as a program, does so and then
executes the actual program, for which the signal remains in effect. Children of the child do not inherit it; for a wrapper,
like MLflow's command around its server, this module makes its children set the signal too.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_PR_SET_PDEATHSIG = 1
_BOUND, _FREE, _PROGRAM = "bound-children", "free-children", "program"


def start_guarded(
    module: str,
    arguments: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    with_children: bool = False,
    files: Sequence[int] = (),
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts ``python -m module arguments…`` as a guarded child.

    Call it from a thread that outlives the child: the kernel ties the signal to the creating *thread*.

    Args:
        module: Module to run as ``__main__``.
        arguments: Its command line.
        environment: The child's whole environment; the parent's when None.
        with_children: Whether processes that the child starts through ``subprocess`` are guarded in the same way; the
            threads that start them must outlive them.
        files: Descriptors to share with the child, under the same numbers.
        stdout: As for :class:`subprocess.Popen`.
        stderr: As for :class:`subprocess.Popen`.
    """
    first_step = ["-m", "tasks.core.processes", str(os.getpid()), _BOUND if with_children else _FREE]
    return _start([*first_step, module, *arguments], environment, None, stdout, stderr, files)


def start_guarded_program(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
) -> subprocess.Popen[bytes]:
    """Starts any program as a guarded child, like :func:`start_guarded`.

    If the program cannot be executed, the child ends with status 1.

    Args:
        command: The program and its arguments.
        environment: The child's whole environment; the parent's when None.
        folder: Its working directory; the parent's when None.
        stdout: As for :class:`subprocess.Popen`.
        stderr: As for :class:`subprocess.Popen`.
    """
    # By path and isolated, because folder and environment of the program may not contain this project.
    first_step = ["-I", str(Path(__file__).resolve()), str(os.getpid()), _PROGRAM]
    return _start([*first_step, *command], environment, folder, stdout, stderr)


def _start(
    arguments: Sequence[str],
    environment: Mapping[str, str] | None,
    folder: Path | None,
    stdout: IO[bytes] | int | None,
    stderr: IO[bytes] | int | None,
    files: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=None if environment is None else dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        pass_fds=files,
        start_new_session=True,
    )


def stop_group(process: subprocess.Popen[bytes], *, grace_seconds: float = 10.0) -> int:
    """Ends a guarded child and its group: SIGTERM, then SIGKILL after the grace time; returns its exit code."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_seconds)
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def die_with_parent(parent_pid: int) -> None:
    """Makes the kernel kill this process when its parent ends (Linux only); exits at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def _signal_group(pid: int, signal_number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal_number)


class _BoundPopen(subprocess.Popen[Any]):
    """Starts a process that the kernel kills when this one ends."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"preexec_fn": functools.partial(die_with_parent, os.getpid()), **kwargs})


if __name__ == "__main__":
    _, parent, kind, name, *rest = sys.argv
    die_with_parent(int(parent))
    if kind == _PROGRAM:
        os.execvp(name, [name, *rest])
    if kind == _BOUND:
        subprocess.Popen = _BoundPopen  # type: ignore[misc]
    sys.argv = [name, *rest]
    runpy.run_module(name, run_name="__main__", alter_sys=True)
