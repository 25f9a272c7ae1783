"""SHA-256 digests, which name all objects of a store."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


def sha256_of(data: bytes) -> str:
    """The hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a local file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_files(folder: Path) -> dict[str, str]:
    """The digest of every file below a folder by its relative name, sorted."""
    return {
        path.relative_to(folder).as_posix(): sha256_of_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of a JSON-able value in canonical form (sorted keys, no spaces)."""
    return sha256_of(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def digests_in(text: str) -> set[str]:
    """All SHA-256 digests in a text."""
    return set(_DIGEST.findall(text))
