"""Which model versions can be removed, and what the others still need. Callers that delete hold the model's lock."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from typing import Any

from tasks.contracts.pruning import OldVersions, PruneCandidate
from tasks.core.paging import every_token
from tasks.core.storage import digests_in
from tasks.registry.approval import approval_in
from tasks.registry.rollout import rollout_in
from tasks.tracking import registry_errors

logger = logging.getLogger(__name__)


def old_versions(client: Any, name: str, keep_versions: int, keep_days: float, now: dt.datetime) -> OldVersions:
    """The removable versions of one registered model, and what all other versions of every registered model need.

    A version stays while it has an alias, while a rollout in progress involves it, while a request for approval of it is
    open, while it is among the newest, and while it is young.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: The registered model whose versions may be removed.
        keep_versions: So many newest versions stay.
        keep_days: Younger versions stay.
        now: With a zone.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    with registry_errors(f"registered model {name}"):
        aliased = {
            str(model.name): {str(version) for version in model.aliases.values()} for model in _pages(client, "models")
        }
        versions = list(_pages(client, "versions"))
    own = sorted((version for version in versions if version.name == name), key=lambda one: int(one.version), reverse=True)
    newest = {str(version.version) for version in own[:keep_versions]}
    guarded = aliased.get(name, set()) | _under_rollout(own) | newest
    removable, kept = [], []
    for version in versions:
        age_days = now.timestamp() / 86_400 - version.creation_timestamp / 86_400_000
        stays = version.name != name or str(version.version) in guarded or _has_open_request(version)
        if stays or age_days <= keep_days:
            kept.append(version)
        else:
            label = f"{name}/{version.version}"
            removable.append(PruneCandidate(kind="model version", name=label, size_bytes=0, age_days=round(age_days, 1)))
    return OldVersions(
        removable=tuple(removable),
        needed=tuple(sorted({digest for version in kept for text in version.tags.values() for digest in digests_in(text)})),
        runs=tuple(sorted({run for version in kept if (run := version.tags.get("perennial.run_name"))})),
    )


def remove_versions(
    client: Any, name: str, items: Iterable[PruneCandidate], keep_versions: int, keep_days: float, now: dt.datetime
) -> tuple[PruneCandidate, ...]:
    """Deletes the versions that are still removable; their MLflow runs stay as the record, their copies of the model go.

    The registry is read once for all of them, and each is read again before it is deleted: somebody may move an alias
    without the lock.

    Returns:
        The deleted versions; without those that got an alias, a rollout or a request for approval meanwhile.
    """
    removable = {item.name for item in old_versions(client, name, keep_versions, keep_days, now).removable}
    return tuple(item for item in items if item.name in removable and _remove(client, name, item.name.rpartition("/")[2]))


def _remove(client: Any, name: str, version: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with registry_errors(f"registered model {name}, version {version}"):
        present = client.get_model_version(name, version)
        if present.aliases or _under_rollout([present]) or _has_open_request(present):
            return False
        client.delete_model_version(name, version)
    try:
        get_artifact_repository(present.source).delete_artifacts()
    except (MlflowException, OSError, NotImplementedError) as error:
        kind = type(error).__name__
        logger.warning("registry: the files of version %s of %s stay at %s: %s", version, name, present.source, kind)
    return True


def _under_rollout(versions: list[Any]) -> set[str]:
    """The versions that share the traffic while a rollout is in progress."""
    rollouts = [(str(version.version), rollout_in(version.tags)) for version in versions]
    return {
        number
        for version, rollout in rollouts
        if rollout is not None and rollout.state == "baking"
        for number in (version, rollout.replaced)
    }


def _has_open_request(version: Any) -> bool:
    approval = approval_in(version.tags)
    return approval is not None and approval.verdict is None


def _pages(client: Any, kind: str) -> Any:
    """Every registered model, or every version, through all pages."""
    search = client.search_registered_models if kind == "models" else client.search_model_versions
    return every_token(lambda size, token: search(max_results=size, page_token=token))
