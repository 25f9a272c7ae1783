"""A private PostgreSQL for a test: its own cluster in a temporary folder, on a free port, gone afterwards.

Use it as ``with running_postgres() as uri`` in a slow test; where PostgreSQL is not installed the test is skipped, and
says so. The cluster keeps nothing on disk for sure (``fsync=off``), which a test does not need.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_START_TIMEOUT_SECONDS = "120"


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
def running_postgres(database: str = "perennial") -> Iterator[str]:
    """``host:port/database`` with a user in front, to be put after ``postgresql+DRIVER://``; anyone local may log in.

    Args:
        database: Name of the empty database to begin with.
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
        options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off -c max_connections=100"
        log = str(folder / "log")
        waiting = ("--wait", f"--timeout={_START_TIMEOUT_SECONDS}")
        run("pg_ctl", "start", *waiting, f"--pgdata={data}", f"--log={log}", "-o", options)
        try:
            run("createdb", "--host=127.0.0.1", f"--port={port}", "--username=perennial", database)
            yield f"perennial@127.0.0.1:{port}/{database}"
        finally:
            run("pg_ctl", "stop", "--wait", "--mode=immediate", f"--pgdata={data}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
