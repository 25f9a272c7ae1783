"""Child processes that never outlive their parent: servers of the embedded mode, trainers on a GPU, other people's tools.

A child started here leads its own session, so that Ctrl-C in the terminal reaches the parent alone, which then ends the
whole group; and it asks the kernel to be killed when its parent dies (``PR_SET_PDEATHSIG``), so that not even ``kill -9``
of the parent leaves a GPU busy. The request is made by the child itself, before it runs anything else: this module run
as a program is that first step. It holds for whatever program the child then turns into. The kernel passes it on to no child
of the child; where that is a mere wrapper, as MLflow's command is around its server, the first step sees to it that its
children ask too.
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

    Call it from a thread that lives as long as the child may: the kernel ties the death signal to the creating *thread*.

    Args:
        module: Module to run as ``__main__``.
        arguments: Its command line.
        environment: The child's whole environment; the parent's when None.
        with_children: Whether what the child starts through ``subprocess`` dies with it in the same way; the threads that
            do so must live as long as what they start.
        files: Descriptors that the child shares, under the same numbers.
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
    """Starts a program that is no module of this interpreter's as a guarded child, like :func:`start_guarded`.

    A program that cannot be run ends the child with status 1; it is the child that finds out.

    Args:
        command: The program and its arguments.
        environment: The child's whole environment; the parent's when None.
        folder: Its working directory; the parent's when None.
        stdout: As for :class:`subprocess.Popen`.
        stderr: As for :class:`subprocess.Popen`.
    """
    # By its path and isolated, because neither the folder nor the environment has to know this project.
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
    """Ends a guarded child and everything it started: SIGTERM, then SIGKILL after the grace time; returns its exit code."""
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_seconds)
    _signal_group(process.pid, signal.SIGKILL)
    return process.wait()


def die_with_parent(parent_pid: int) -> None:
    """Asks the kernel to kill this process when its parent dies; exits at once when it is dead already (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)


def _signal_group(pid: int, signal_number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal_number)


class _BoundPopen(subprocess.Popen[Any]):
    """Starts a process that dies with this one."""

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
