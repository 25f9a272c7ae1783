"""What a stage's result depends on, as one key.

The key is a hash of the stage's name, its code with the versions of the libraries that do its work, and its parameters
with every data set reduced to its hash. The same work is therefore found again after a crash, in another run, or next
quarter, and never after its code changed. A recorded result whose files are gone is passed over: the stage runs again.
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
    """Settings that name something outside themselves: a deny-list file, a key, decisions that people have made.

    What that something holds belongs to the cache key; else a changed deny list would find yesterday's result.
    """

    def external_fingerprints(self) -> Mapping[str, str]:
        """A digest of each outside thing by its name; never the thing itself."""


@runtime_checkable
class HasStorePointers(Protocol):
    """Settings that name pointers of the store that the stage's data set lies in, such as ``reviews/support-desk``.

    What they point to belongs to the cache key; else the answers of a review would change nothing until new rows come.
    """

    def pointers(self) -> Sequence[str]:
        """The names of the pointers."""


@runtime_checkable
class ExcludedFromCacheKey(Protocol):
    """Settings that decide whether a stage may run, or what it costs, and not what comes out: a budget.

    They are no part of the cache key; else a new price would train the same model again.
    """

    excluded_from_cache_key: ClassVar[bool]


@dataclass
class ContentCachePolicy(CachePolicy):
    """Keys a task by its stage name, the stage's code and the content of its parameters.

    Args:
        stage: The stage's name.
        module_file: Where the stage's function stands; see :func:`tasks.core.source_hash.code_sha256`.
    """

    stage: str = ""
    module_file: Path = Path()

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """The key of a record that still holds, or of one yet to be made.

        Prefect never checks that what a record refers to still exists, and offers no way to remove a record; so each
        record whose files are gone hands over to a successor, ``…-again1``, ``…-again2``. The progress listeners are told
        here of a stage that will be kept, because its task does not run.
        """
        if store_uri := inputs.get("store_uri"):
            open_store(store_uri)
        kept = {
            name: value
            for name, value in sorted(inputs.items())
            if name != "store_uri" and not isinstance(value, ExcludedFromCacheKey)
        }
        content = {name: content_of(value) for name, value in kept.items()} | _pointed_to(inputs)
        code = code_sha256(self.module_file)
        first = key = f"{self.stage}-{code[:12]}-{sha256_of_json(content)[:32]}"
        store, attempt = task_ctx.result_store, 0
        while store.exists(key) and not all(_is_there(ref) for ref in references_in(store.read(key).result)):
            logger.warning("%s: the files of its recorded result are gone from the store; it runs again", self.stage)
            attempt += 1
            key = f"{first}-again{attempt}"
        if store.exists(key):
            with report_progress(self.stage) as progress:
                progress.finish("kept from an earlier run")
        return key


def cached_measurements(
    store: Store, folder: str, content: Mapping[str, Any], measure: Callable[[], tuple[Measurement, ...]]
) -> tuple[Measurement, ...]:
    """What was measured of this content before, in whichever run, or else what ``measure`` finds now, which is kept.

    For a part of a stage that takes long and depends on less than the stage does: the same model under the same questions.

    Args:
        store: Where the measurements lie.
        folder: Under what they lie there.
        content: Everything that they depend on: a version of the code, digests, settings.
        measure: Measures; asked only where nothing is kept.
    """
    name = f"{folder}/{sha256_of_json(content)}.json"
    measured = TypeAdapter(tuple[Measurement, ...])
    if (kept := store.read_named(name)) is not None:
        return measured.validate_json(kept)
    # Of two runs that measure at once both go by what was kept first.
    return measured.validate_json(store.keep_named(name, measured.dump_json(measure())))


def content_of(value: Any) -> Any:
    """What a parameter contributes to a cache key: references by hash alone, models and containers by their parts.

    A store's location (``store_uri``) and the time a stage took are not content.
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


def _pointed_to(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The hash of what each pointer named by the settings leads to, empty where it leads nowhere yet."""
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


def _is_there(ref: DatasetRef | FileRef | FolderRef) -> bool:
    return run_store().holds(ref)
