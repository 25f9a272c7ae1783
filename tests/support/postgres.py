"""A private PostgreSQL for a test: its own cluster in a temporary folder, on a free port, gone afterwards.

Use it as ``with running_postgres() as uri`` in a slow test; where PostgreSQL is not installed the test is skipped, and
says so. The cluster keeps nothing on disk for sure (``fsync=off``), which a test does not need. It dies with the process
that asked for it, even by ``kill -9``: the kernel then asks the postmaster to stop at once (``setpriv --pdeathsig``).
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_TIMEOUT_SECONDS = 120.0


def _find_binaries() -> Path | None:
    """The folder with ``initdb`` and ``pg_ctl``: Debian keeps it off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return max((path.parent for path in folders), key=lambda path: int(path.parent.name), default=None)


def is_installed() -> bool:
    """Whether :func:`running_postgres` would find PostgreSQL here."""
    return _find_binaries() is not None


def _unprivileged_user() -> str | None:
    """Who runs the server: PostgreSQL refuses root, whose tests it then serves as Debian's ``postgres``."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("PostgreSQL refuses to run as root, and there is no other user")


@contextmanager
def running_postgres(*databases: str) -> Iterator[str]:
    """``user@host:port``, to be put between ``postgresql+DRIVER://`` and a database's name; anyone local may log in.

    Args:
        databases: Names of the empty databases to begin with.
    """
    binaries = _find_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = _unprivileged_user()
    # Not pytest's own folder: only its owner may enter that.
    folder = Path(tempfile.mkdtemp(prefix="perennial-postgres-"))
    try:
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *arguments: str) -> None:
            subprocess.run(
                [str(binaries / program), *arguments],
                user=user,
                cwd=folder,
                env={**os.environ, "HOME": str(folder), "LC_ALL": "C"},
                stdout=subprocess.DEVNULL,  # not a pipe: the server inherits it, and would hold it open
                check=True,
            )

        data = str(folder / "data")
        run("initdb", "--pgdata", data, "--username=perennial", "--auth=trust", "--encoding=UTF8", "--no-sync")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = ["postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
        settings = ["-c", "fsync=off", "-c", "max_connections=100"]
        with (folder / "log").open("wb") as log:
            # The death signal is forgotten when a process changes its user, so setpriv asks for it after Popen has done so.
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "QUIT", str(binaries / server[0]), *server[1:], *settings],
                user=user,
                cwd=folder,
                env={**os.environ, "HOME": str(folder), "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_until_ready(binaries / "pg_isready", port, process)
            for database in databases:
                run("createdb", "--host=127.0.0.1", f"--port={port}", "--username=perennial", database)
            yield f"perennial@127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGQUIT)
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(pg_isready: Path, port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    asking = [str(pg_isready), "--quiet", "--host=127.0.0.1", f"--port={port}"]
    while subprocess.run(asking, check=False).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("PostgreSQL did not start; its log is in its folder")
        time.sleep(0.1)
