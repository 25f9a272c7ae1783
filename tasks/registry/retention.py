"""Which model versions may go, and what the others still need. Callers that delete hold the model's lock."""

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
    """The versions of one registered model that may go, and what all others of every registered model need.

    A version stays while it has an alias, while a rollout that is on its way names it, while a person is asked about it,
    while it is among the newest, and while it is young.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: The registered model whose versions may go.
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
    own = sorted((one for one in versions if one.name == name), key=lambda one: int(one.version), reverse=True)
    guarded = aliased.get(name, set()) | _under_rollout(own) | {one.version for one in own[:keep_versions]}
    removable, kept = [], []
    for one in versions:
        age_days = now.timestamp() / 86_400 - one.creation_timestamp / 86_400_000
        held = one.name != name or str(one.version) in {str(version) for version in guarded} or _is_asked_about(one)
        if held or age_days <= keep_days:
            kept.append(one)
        else:
            item = PruneCandidate(
                kind="model version", name=f"{name}/{one.version}", size_bytes=0, age_days=round(age_days, 1)
            )
            removable.append(item)
    return OldVersions(
        removable=tuple(removable),
        needed=tuple(sorted({digest for one in kept for text in one.tags.values() for digest in digests_in(text)})),
        runs=tuple(sorted({one.tags["perennial.run_name"] for one in kept if one.tags.get("perennial.run_name")})),
    )


def remove_versions(
    client: Any, name: str, items: Iterable[PruneCandidate], keep_versions: int, keep_days: float, now: dt.datetime
) -> tuple[PruneCandidate, ...]:
    """Deletes the versions that still may go; their MLflow runs stay as the record, their copies of the model go.

    The registry is looked through once for all of them, and each is read again before it goes: an alias may be moved by
    somebody who does not ask for the lock.

    Returns:
        Those that were deleted; not one that has got an alias, a rollout or a question meanwhile.
    """
    may_go = {one.name for one in old_versions(client, name, keep_versions, keep_days, now).removable}
    return tuple(item for item in items if item.name in may_go and _remove(client, name, item.name.rpartition("/")[2]))


def _remove(client: Any, name: str, version: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with registry_errors(f"registered model {name}, version {version}"):
        found = client.get_model_version(name, version)
        if found.aliases or _under_rollout([found]) or _is_asked_about(found):
            return False
        client.delete_model_version(name, version)
    try:
        get_artifact_repository(found.source).delete_artifacts()
    except (MlflowException, OSError, NotImplementedError) as error:
        place = found.source
        logger.warning("registry: the files of version %s of %s stay at %s: %s", version, name, place, type(error).__name__)
    return True


def _under_rollout(versions: list[Any]) -> set[str]:
    """The versions that share the traffic while a rollout is on its way."""
    found: set[str] = set()
    for one in versions:
        rollout = rollout_in(one.tags)
        if rollout is not None and rollout.state == "baking":
            found |= {str(one.version), rollout.replaced}
    return found


def _is_asked_about(version: Any) -> bool:
    asked = approval_in(version.tags)
    return asked is not None and asked.verdict is None


def _pages(client: Any, kind: str) -> Any:
    """Every registered model, or every version, through all pages."""
    search = client.search_registered_models if kind == "models" else client.search_model_versions
    return every_token(lambda size, token: search(max_results=size, page_token=token))
