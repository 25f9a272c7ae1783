"""The version that a training starts from, where it starts from the champion and not from the base model."""

from __future__ import annotations

from typing import Any

from tasks.contracts.references import DatasetRef
from tasks.contracts.registry import Champion
from tasks.contracts.training import BaseLanguageModel, Start, StartingPoint
from tasks.core.storage import Store
from tasks.registry.versions import started_from, tags_of
from tasks.tracking import registry_errors


def starting_point(
    client: Any, champion: Champion | None, base: BaseLanguageModel, rows: DatasetRef, frozen: DatasetRef
) -> Start:
    """The champion's adapter, or the base model.

    A champion that learned these very rows is not their start: that is what it started from itself, so that the same run
    trains nothing twice after its candidate was promoted. A champion that was measured on other frozen examples may have
    learned the present ones.

    Args:
        client: From :func:`tasks.tracking.connect`.
        champion: From :func:`tasks.registry.versions.champion_of`.
        base: The base model of the run.
        rows: The rows that are to be learned.
        frozen: The frozen test set of the run.

    Raises:
        RegistryError: MLflow does not answer.
    """
    if champion is None:
        return Start(reason="the base model: there is no champion yet")
    name, version = champion.version.name, champion.version.version
    with registry_errors(f"registered model {name}"):
        tags = tags_of(client, name, version) or {}
    if champion.base.folder.sha256 != base.folder.sha256:
        return Start(reason=f"the base model: version {version} has another one, {champion.base.name}")
    if tags.get("perennial.frozen_sha256") != frozen.sha256:
        why = f"version {version} was measured on other frozen examples, and may have learned the present ones"
        return Start(reason=f"the base model: {why}")
    before = started_from(tags)
    if tags.get("perennial.train_sha256") == rows.sha256:
        learned = f"version {version} did, which learned these rows"
        return Start(point=before, reason=f"{f'version {before.version}' if before else 'the base model'}, as {learned}")
    ancestors = before.versions if before else ()
    point = StartingPoint(version=version, adapter=champion.adapter, ancestors=ancestors)
    return Start(point=point, reason=f"version {version}")


def with_learned_rows(client: Any, name: str, start: Start, store: Store) -> Start:
    """The start with the training rows of its version and of all before it; the words name those that the store lacks.

    Raises:
        RegistryError: MLflow does not answer.
        IntegrityError: Rows were altered.
    """
    learned, unknown = [], []
    for version in start.point.versions if start.point else ():
        with registry_errors(f"registered model {name}"):
            sha256 = (tags_of(client, name, version) or {}).get("perennial.train_sha256")
        rows = store.find_dataset(sha256) if sha256 else None
        if rows is None:
            unknown.append(version)
        else:
            learned.append(rows)
    reason = start.reason
    if unknown:
        reason += f" (the store lacks the rows of version {', '.join(unknown)}, which count as new)"
    return start.model_copy(update={"learned": tuple(learned), "reason": reason})
