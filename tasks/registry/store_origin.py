"""Which registry a store belongs to: the one whose versions need its contents.

Pruning with another registry, such as an empty one that was started by mistake, would remove the champion's files. So a
store records each model that was registered from it, with the time at which its registry created the model.
"""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException

from tasks.contracts.registry import RegistryMark
from tasks.core.storage import Store
from tasks.tracking import registry_errors

_FOLDER = "registries"


def record_registry(client: Any, name: str, store: Store) -> None:
    """Records in the store that a registered model's versions need it, before the first version is made.

    Args:
        client: From :func:`tasks.tracking.connect`.
        name: The registered model, which exists.
        store: The store that its versions are made from.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    created_at_ms = _created_at_ms(client, name)
    assert created_at_ms is not None

    def with_this_registry(known: RegistryMark | None) -> RegistryMark:
        times = known.created_at_ms if known is not None else ()
        return RegistryMark(created_at_ms=tuple(sorted({*times, created_at_ms})))

    store.update_record(f"{_FOLDER}/{name}", RegistryMark, with_this_registry)


def unknown_registry_reason(client: Any, store: Store) -> str:
    """Why this registry is not known to be the store's; empty where it is.

    Args:
        client: From :func:`tasks.tracking.connect`.
        store: The store to prune.

    Raises:
        RegistryError: MLflow refuses or does not answer.
    """
    prefix = f"pointers/{_FOLDER}/"
    names = [path.removeprefix(prefix)[:-5] for path, _, _ in store.walk(prefix.rstrip("/")) if path.endswith(".json")]
    if not names:
        return (
            "no version was registered from this store yet, or only by an earlier release; the next registration records it"
        )
    for name in names:
        mark = store.read_record(f"{_FOLDER}/{name}", RegistryMark)
        if mark is None:
            continue
        note = f"pointers/{_FOLDER}/{name}.json in the store"
        if len(mark.created_at_ms) > 1:
            return f"{name} was registered from this store in {len(mark.created_at_ms)} registries (see {note})"
        if _created_at_ms(client, name) not in mark.created_at_ms:
            return (
                f"this registry has no model {name}, or another one of that name than was registered from here (see {note})"
            )
    return ""


def _created_at_ms(client: Any, name: str) -> int | None:
    """When the registry created a model; None where it has no model of that name."""
    with registry_errors(f"registered model {name}"):
        try:
            return int(client.get_registered_model(name).creation_timestamp)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
