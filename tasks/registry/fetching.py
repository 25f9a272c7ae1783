"""A version's files for serving, each compared with its digest in the registry before any of them runs.

A version contains code that MLflow runs. Everybody who can write to MLflow's artifact store could change it there; the
digests are tags of the version, which only accounts that may edit the registered model can change.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tasks.core.errors import InputError, IntegrityError
from tasks.core.storage import sha256_of_file
from tasks.registry.versions import CHAMPION, FILES, aliases_of, tags_of
from tasks.tracking import registry_errors


def fetch_version(client: Any, name: str, out: Path, alias: str = CHAMPION) -> str:
    """Downloads the version under an alias to ``out``, exactly as it was registered; returns its number.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: Registered model.
        out: A folder that does not exist yet; ``mlflow models serve -m`` takes it.
        alias: Which version.

    Raises:
        InputError: No version has the alias, or ``out`` exists.
        IntegrityError: The version has no digests, or a file is missing, altered or added; it is named.
        RegistryError: MLflow refuses or does not answer.
    """
    if out.exists():
        raise InputError(str(out), "a folder that exists", "a new one", "Name another, or move it away.")
    with registry_errors(f"registered model {name}"):
        version = aliases_of(client, name).get(alias)
        tags = tags_of(client, name, version) if version is not None else None
        if version is None or tags is None:
            raise InputError(f"registered model {name}", f"no {alias}", f"a version under the alias {alias}", "Promote one.")
        where = f"registered model {name}, version {version}"
        if FILES not in tags:
            todo = "Run `perennial retrain` again; versions of earlier releases have none."
            raise IntegrityError(where, f"no tag {FILES}", "the digests of its files", todo)
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".fetching-") as scratch:
            run_id = client.get_model_version(name, version).run_id
            files = Path(client.download_artifacts(run_id, "model", scratch))
            check_files(files, json.loads(tags[FILES]), where)
            shutil.move(str(files), out)
    return version


def check_files(folder: Path, digests: dict[str, str], where: str) -> None:
    """Compares a folder with the digests of its files.

    Raises:
        IntegrityError: A file is missing, altered, a link or added; it is named.
    """
    todo = "Find out who changed them, and restore the version's files; `perennial rollback` makes another version champion."
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_symlink() or path.is_file()}
    for name in sorted(found.keys() | digests.keys()):
        if name not in digests:
            raise IntegrityError(f"{where}, {name}", "a file that was not registered", "only registered files", todo)
        if name not in found or found[name].is_symlink():
            raise IntegrityError(f"{where}, {name}", "no such file", "the file that was registered", todo)
        if sha256_of_file(found[name]) != digests[name]:
            raise IntegrityError(f"{where}, {name}", "other bytes", f"SHA-256 {digests[name][:12]}", todo)
