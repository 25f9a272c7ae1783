"""How a pure function becomes a Prefect task: named, retried, cached by content, its progress and summary shown.

The cache key of a stage is a hash of what its output depends on, and nothing else: the stage's name, its code with the
versions of the libraries that do its work, and its parameters with every data set reduced to its hash. The same work is
therefore found again after a crash, in another run, or next quarter, and never after its code changed. A recorded result
whose files are gone is passed over, so that the stage runs again instead of handing on a dangling reference.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar, runtime_checkable

from prefect import State, Task
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.cache_policies import INPUTS, RUN_ID, CachePolicy
from prefect.client.schemas.objects import TaskRun
from prefect.context import TaskRunContext
from prefect.serializers import JSONSerializer, Serializer
from prefect.utilities.importtools import to_qualified_name
from pydantic import BaseModel, TypeAdapter

from tasks import contracts
from tasks.contracts import Contract, DatasetRef, FileRef, FolderRef, Measurement
from tasks.errors import IntegrityError, RegistryOutageError
from tasks.progress import report_progress
from tasks.sources import code_sha256
from tasks.storage import Store, open_store, run_store, sha256_of_json

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_REFERENCES = (DatasetRef, FileRef, FolderRef)


def encode_contract(value: Any) -> Any:
    """A contract as JSON that names its class, an exception as its message; nothing else is kept as a result.

    Raises:
        TypeError: The value is neither; Prefect then says so of the stage that returned it.
    """
    if isinstance(value, Contract):
        return {"contract": to_qualified_name(type(value)), "fields": value.model_dump(mode="json")}
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    raise TypeError(f"a {type(value).__name__} is no contract of {contracts.__name__}")


def decode_contract(value: dict[str, Any]) -> Any:
    """The contract that :func:`encode_contract` wrote; any other object as it is.

    A record is data from disk: it chooses among the contracts, and imports and calls nothing else.

    Raises:
        IntegrityError: The record names something else than a contract, which nothing here wrote.
    """
    if value.keys() != {"contract", "fields"}:
        return value
    name = value["contract"]
    contract = _CONTRACTS_BY_NAME.get(name) if isinstance(name, str) else None
    if contract is None:
        raise _refused(f"{name!r} in place of a contract")
    return contract.model_validate(value["fields"])


_CONTRACTS_BY_NAME: Mapping[str, type[Contract]] = {
    to_qualified_name(item): item
    for item in vars(contracts).values()
    if isinstance(item, type) and issubclass(item, Contract) and item.__module__ == contracts.__name__
}

CONTRACTS = JSONSerializer(object_encoder="tasks.stage.encode_contract", object_decoder="tasks.stage.decode_contract")
"""How stages and flows keep their results. Prefect's own JSON imports whatever a record names, and writes a model as
``{"__class__": ..., "data": ...}``, which it then reads as a record of an older release: a flow that is done comes back as
a bare dictionary, and the Retry of its parent fails (Prefect 3.8.8, ``ResultRecord.coerce_old_format``)."""


def read_result(cls: type[ResultRecord[Any]], data: bytes, backup_serializer: Serializer | None = None) -> ResultRecord[Any]:
    """A recorded result, read with :data:`CONTRACTS` whatever the record says of itself.

    Prefect lets each record name the serializer that reads it, ``pickle`` where it names none: who can write a file into
    its storage of results would run code as the worker. This function therefore takes the place of
    ``ResultRecord.deserialize``, through which Prefect 3.8 reads every result: a stage's from the cache, a flow's on Retry,
    a child run's.

    Args:
        cls: The class of the record.
        data: Its bytes: a stage's result with what is to be known of it, or a flow's result alone.
        backup_serializer: Given where the bytes may be a result alone, whose serializer the flow's state names; they are
            read with :data:`CONTRACTS` all the same.

    Raises:
        IntegrityError: The record is not one that :data:`CONTRACTS` wrote; names what was found.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        raise _refused("bytes that are no JSON") from None
    if not (isinstance(record, dict) and {"metadata", "serializer"} & record.keys()):
        if backup_serializer is None:
            raise _refused("a result without its metadata")
        return cls(metadata=ResultRecordMetadata(serializer=CONTRACTS), result=CONTRACTS.loads(data))
    metadata = record.get("metadata")
    metadata, result = metadata if isinstance(metadata, dict) else {}, record.get("result")
    if metadata.get("serializer") != CONTRACTS.model_dump() or not isinstance(result, str):
        named = metadata.get("serializer", record.get("serializer"))
        kind = named.get("type") if isinstance(named, dict) else named
        raise _refused(f"the serializer {str(kind)[:40]!r}", str(metadata.get("storage_key"))[:200])
    kept = {name: metadata.get(name) for name in ("storage_key", "expiration", "storage_block_id")}
    return cls(metadata=ResultRecordMetadata(**kept, serializer=CONTRACTS), result=CONTRACTS.loads(result.encode()))


def _read_parts(cls: type[ResultRecord[Any]], result: bytes, metadata: bytes) -> ResultRecord[Any]:
    """The same where result and metadata lie apart."""
    return read_result(cls, b'{"metadata":' + metadata + b',"result":' + json.dumps(result.decode()).encode() + b"}")


# One door for all readers, so that no caller can forget it; tests/flows/test_records.py fails where Prefect gets another.
ResultRecord.deserialize = classmethod(read_result)  # type: ignore[method-assign, assignment]
ResultRecord.deserialize_from_result_and_metadata = classmethod(_read_parts)  # type: ignore[method-assign, assignment]


def _refused(found: str, key: str | None = None) -> IntegrityError:
    error = IntegrityError(
        "a recorded result" + (f" ({key})" if key else ""),
        found,
        "a record that this project wrote: JSON that names contracts",
        "Remove the record from Prefect's storage of results, and find out who wrote it; what it stands for runs again.",
    )
    # Prefect takes a cached record that cannot be read for none, in silence; the stage then runs and replaces it.
    logger.error("%s", error)
    return error


@runtime_checkable
class DependsOnOutside(Protocol):
    """Settings that name something outside themselves: a deny-list file, a key, decisions that people have made.

    What that something holds belongs to the cache key; else a changed deny list would find yesterday's result.
    """

    def outside_content(self) -> Mapping[str, str]:
        """A digest of each outside thing by its name; never the thing itself."""


@runtime_checkable
class DependsOnPointers(Protocol):
    """Settings that name pointers of the store that the stage's data set lies in, such as ``reviews/support-desk``.

    What they point to belongs to the cache key; else the answers of a review would change nothing until new rows come.
    """

    def pointers(self) -> Sequence[str]:
        """The names of the pointers."""


@runtime_checkable
class ChangesNoResult(Protocol):
    """Settings that decide whether a stage may run, or what it costs, and not what comes out: a budget.

    They are no part of the cache key; else a new price would train the same model again.
    """

    changes_no_result: ClassVar[bool]


@dataclass
class ContentCachePolicy(CachePolicy):
    """Keys a task by its stage name, the stage's code and the content of its parameters.

    Args:
        stage: The stage's name.
        module_file: Where the stage's function stands; see :func:`tasks.sources.code_sha256`.
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
            if name != "store_uri" and not isinstance(value, ChangesNoResult)
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


_before_work: ContextVar[Callable[[], None] | None] = ContextVar("before_work", default=None)


@contextmanager
def before_work(act: Callable[[], None]) -> Iterator[None]:
    """Has ``act`` called whenever a stage inside the block begins to work; a stage whose result is kept does not.

    What work alone needs, such as a GPU, is thus taken after the look at the kept results.
    """
    token = _before_work.set(act)
    try:
        yield
    finally:
        _before_work.reset(token)


def _begin_work() -> None:
    act = _before_work.get()
    if act is not None:
        act()


OUTAGE_DELAYS_SECONDS = [2.0, 5.0, 10.0, 20.0, *[30.0] * 18]
"""How long a stage waits for a server that is away before it asks again: ten minutes in all, seconds where those do."""


def _is_outage(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether a stage broke off because a server did not answer; a refusal is final."""
    error = state.result(raise_on_failure=False)
    if isinstance(error, RegistryOutageError):
        logger.warning("%s waits for MLflow and asks again, for ten minutes at most: %s", task.name, error)
        return True
    return False


def stage_task(name: str, *, cached: bool = True, patient: bool = False) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A decorator that makes a stage's function a Prefect task with the project's conventions.

    Args:
        name: The stage's name as the UI shows it.
        cached: False for acts that must happen in every run, such as moving an alias.
        patient: Whether it waits for an MLflow that does not answer, see :data:`OUTAGE_DELAYS_SECONDS`. Only for what may be
            done twice.
    """

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        policy = ContentCachePolicy(stage=name, module_file=Path(function.__code__.co_filename))

        @functools.wraps(function)
        def work(*args: P.args, **kwargs: P.kwargs) -> R:
            _begin_work()
            return function(*args, **kwargs)

        return Task(
            fn=work,
            name=name,
            retries=len(OUTAGE_DELAYS_SECONDS) if patient else 0,
            retry_delay_seconds=OUTAGE_DELAYS_SECONDS if patient else None,
            retry_condition_fn=_is_outage if patient else None,
            persist_result=True,
            result_serializer=CONTRACTS,
            cache_policy=policy if cached else INPUTS + RUN_ID,
        )

    return decorate


def kept_measurements(
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
        if isinstance(value, DependsOnOutside):
            content["outside"] = dict(value.outside_content())
        return content
    if isinstance(value, Mapping):
        return {str(name): content_of(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [content_of(item) for item in value]
    return value


def _pointed_to(inputs: Mapping[str, Any]) -> dict[str, str]:
    """The hash of what each pointer named by the settings leads to, empty where it leads nowhere yet."""
    names = [name for value in inputs.values() if isinstance(value, DependsOnPointers) for name in value.pointers()]
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
