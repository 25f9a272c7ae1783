"""The cache key of a stage: everything that its result depends on.

The key is a hash of the stage's name, its code with the versions of its libraries, and its parameters with every data set
reduced to its hash. A result is therefore reused after a crash, in another run, or next quarter, and never after a change
of its code. A recorded result whose files are missing is ignored: the stage runs again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from pydantic import BaseModel, TypeAdapter

from tasks.contracts.measurement import Measurement
from tasks.contracts.references import DatasetRef, FileRef, FolderRef
from tasks.core.progress import report_progress
from tasks.core.source_hash import code_sha256
from tasks.core.storage import Store, open_store, run_store, sha256_of_json

logger = logging.getLogger(__name__)

_REFERENCES = (DatasetRef, FileRef, FolderRef)


@runtime_checkable
class HasExternalInputs(Protocol):
    """Settings that refer to external inputs: a deny-list file, a key, decisions of reviewers.

    The content of these inputs is part of the cache key; otherwise a changed deny list would reuse an outdated result.
    """

    def external_fingerprints(self) -> Mapping[str, str]:
        """A digest of each external input by its name; never the input itself."""


@runtime_checkable
class HasStorePointers(Protocol):
    """Settings that name pointers in the store of the stage's data set, such as ``reviews/support-desk``.

    Their targets are part of the cache key; otherwise the decisions of a review would have no effect until new rows arrive.
    """

    def pointers(self) -> Sequence[str]:
        """The names of the pointers."""


@runtime_checkable
class ExcludedFromCacheKey(Protocol):
    """Settings that affect whether a stage may run, or its cost, and not its result: a budget.

    They are not part of the cache key; otherwise a new price would train the same model again.
    """

    excluded_from_cache_key: ClassVar[bool]


@dataclass
class ContentCachePolicy(CachePolicy):
    """Keys a task by its stage name, the stage's code and the content of its parameters.

    Args:
        stage: The stage's name.
        module_file: The file of the stage's function; see :func:`tasks.core.source_hash.code_sha256`.
    """

    stage: str = ""
    module_file: Path = Path()

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key of a valid record, or of a new one.

        Prefect neither checks that the files of a record exist nor offers to remove a record; so a record with missing
        files is replaced by a successor, ``…-again1``, ``…-again2``. The progress of a cached stage is reported here,
        because its task does not run.
        """
        if store_uri := inputs.get("store_uri"):
            open_store(store_uri)
        relevant = {
            name: value
            for name, value in sorted(inputs.items())
            if name != "store_uri" and not isinstance(value, ExcludedFromCacheKey)
        }
        content = {name: content_of(value) for name, value in relevant.items()} | pointer_targets(inputs)
        code = code_sha256(self.module_file)
        first_key = key = f"{self.stage}-{code[:12]}-{sha256_of_json(content)[:32]}"
        store, attempt = task_ctx.result_store, 0
        while store.exists(key) and not all(run_store().holds(ref) for ref in references_in(store.read(key).result)):
            logger.warning("%s: files of its recorded result are missing from the store; it runs again", self.stage)
            attempt += 1
            key = f"{first_key}-again{attempt}"
        if store.exists(key):
            with report_progress(self.stage) as progress:
                progress.finish("kept from an earlier run")
        return key


def cached_measurements(
    store: Store, folder: str, content: Mapping[str, Any], measure: Callable[[], tuple[Measurement, ...]]
) -> tuple[Measurement, ...]:
    """The measurements of this content from an earlier run, or new ones from ``measure``, which are kept.

    For a slow part of a stage with fewer dependencies than the stage: the same model with the same questions.

    Args:
        store: The store of the measurements.
        folder: Their folder in the store.
        content: Everything that they depend on: a version of the code, digests, settings.
        measure: Makes the measurements; called only if none are kept.
    """
    name = f"{folder}/{sha256_of_json(content)}.json"
    measured = TypeAdapter(tuple[Measurement, ...])
    if (kept := store.read_named(name)) is not None:
        return measured.validate_json(kept)
    # Of two concurrent runs both use the measurements that were kept first.
    return measured.validate_json(store.keep_named(name, measured.dump_json(measure())))


def content_of(value: Any) -> Any:
    """The content of a parameter for the cache key: references by hash, models and containers by their parts.

    The location of a store (``store_uri``) and the duration of a stage are excluded.
    """
    if isinstance(value, _REFERENCES):
        return value.sha256
    if isinstance(value, BaseModel):
        names = (name for name in type(value).model_fields if name not in ("seconds", "store_uri"))
        content = {name: content_of(getattr(value, name)) for name in names}
        if isinstance(value, HasExternalInputs):
            content["outside"] = dict(value.external_fingerprints())
        return content
    if isinstance(value, Mapping):
        return {str(name): content_of(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [content_of(item) for item in value]
    return value


def pointer_targets(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The hash of the target of each pointer in the settings, empty for a pointer that does not exist yet."""
    names = [name for value in inputs.values() if isinstance(value, HasStorePointers) for name in value.pointers()]
    datasets = [value for value in inputs.values() if isinstance(value, DatasetRef)]
    if not names or not datasets:
        return {}
    store = run_store()
    return {f"pointer {name}": ref.sha256 if (ref := store.read_pointer(name)) else "" for name in names}


def references_in(value: Any) -> Iterator[DatasetRef | FileRef | FolderRef]:
    """Every reference inside a contract."""
    if isinstance(value, _REFERENCES):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from references_in(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from references_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from references_in(item)
