"""The credential of the embedded servers: created once per embedded folder, readable by its owner, never logged."""

from __future__ import annotations

import os
import secrets
import tempfile
from pathlib import Path

from tasks.core.errors import StoreError

FILE_NAME = "server-credential"
USER = "perennial"


def read_credential(folder: Path) -> str:
    """``user:password`` of the folder's servers; created if absent, the same for concurrent callers.

    Raises:
        StoreError: The file cannot be created or read, or others may read it.
    """
    path = folder / FILE_NAME
    try:
        if not path.exists():
            _make(path)
        if path.stat().st_mode & 0o077:
            raise StoreError(
                str(path), "a file that others may read", "mode 0600", f"Remove it and stop the folder's servers: rm {path}"
            )
        credential = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            str(path), f"{type(error).__name__}", "a readable credential", "Remove it; a new one is created."
        ) from error
    if not credential.startswith(f"{USER}:") or len(credential) < len(USER) + 30:
        raise StoreError(str(path), "other text", "a credential of the embedded servers", "Remove it; a new one is created.")
    return credential


def _make(path: Path) -> None:
    """Writes a credential under a temporary name, then links it: no reader sees a part, and the first writer wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{FILE_NAME}-")  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{USER}:{secrets.token_urlsafe(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(name, path)
        except FileExistsError:
            return
    finally:
        os.unlink(name)
