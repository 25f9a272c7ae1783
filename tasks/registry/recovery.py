"""Brings a champion's adapter back into a store that does not hold it: a new store, or one restored from an older copy.

Every version holds its adapter in the registry, and the digest of that adapter in its tags: only the adapter that was
benchmarked comes back.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tasks.contracts.registry import Champion
from tasks.core.addresses import without_secrets
from tasks.core.documents import parse_yaml, read_text
from tasks.core.errors import IntegrityError
from tasks.core.scratch import scratch_folder
from tasks.core.storage import Store
from tasks.core.storage.folders import MANIFEST
from tasks.tracking import registry_errors

logger = logging.getLogger(__name__)


def recover_champion(client: Any, champion: Champion, store: Store) -> bool:
    """Fetches the champion's adapter from the registry where the store lacks it; whether that was necessary.

    Args:
        client: From :func:`tasks.tracking.connect`.
        champion: From :func:`tasks.registry.versions.champion_of`.
        store: The run's store.

    Raises:
        IntegrityError: The store lacks the base model, or the registry's adapter is not the one that was benchmarked.
        RegistryError: MLflow refuses or does not answer.
    """
    version, name = champion.version, f"{champion.version.name} version {champion.version.version}"
    if not store.holds(champion.base.folder):
        raise IntegrityError(
            name,
            f"no base model {champion.base.name} ({champion.base.folder.sha256[:12]}) in {store.uri}",
            "the base model that the champion was trained on",
            "Copy that folder from the former store, or run once with the former store.",
        )
    if store.holds(champion.adapter):
        return False
    with scratch_folder("champion") as scratch:
        with registry_errors(name):
            files = Path(client.download_artifacts(version.run_id, "model", str(scratch)))
        model = parse_yaml(read_text(files / "MLmodel"))
        adapter = files / model["flavors"]["python_function"]["artifacts"]["adapter"]["path"]
        if not adapter.resolve().is_relative_to(files.resolve()):  # the digest is compared only afterwards
            raise IntegrityError(
                f"{name} in the registry",
                "an MLmodel whose adapter lies outside of the version's files",
                "a folder among them",
                "Restore the version's files; `perennial rollback` makes another version champion.",
            )
        (adapter / MANIFEST).unlink(missing_ok=True)  # this store writes its own
        fetched = store.add_folder(adapter)
    if fetched.sha256 != champion.adapter.sha256:
        raise IntegrityError(
            f"{name} in the registry",
            f"an adapter with digest {fetched.sha256[:12]}",
            f"the adapter that was benchmarked, {champion.adapter.sha256[:12]}",
            "Restore the version's files or the former store; `perennial rollback` makes another version champion.",
        )
    place = without_secrets(store.uri)
    logger.warning("registry: the adapter of %s was not in %s; it was fetched from the registry", name, place)
    return True
