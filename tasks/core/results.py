"""How stages and flows keep their results: JSON that names contracts, read by one function, never by a pickle."""

from __future__ import annotations

import importlib
import json
import logging
import re
from typing import Any

from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.serializers import JSONSerializer, Serializer
from prefect.utilities.importtools import to_qualified_name

from tasks import contracts
from tasks.contracts.base import Contract
from tasks.core.errors import IntegrityError

logger = logging.getLogger(__name__)

_CONTRACT_NAME = re.compile(rf"({re.escape(contracts.__name__)}\.[a-z_]+)\.([A-Za-z]+)")


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
    contract = _contract_of(value["contract"])
    if contract is None:
        raise _refused(f"{value['contract']!r} in place of a contract")
    return contract.model_validate(value["fields"])


def _contract_of(name: object) -> type[Contract] | None:
    """The contract of this qualified name, such as ``tasks.contracts.training.TrainingResult``."""
    match = _CONTRACT_NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None:
        return None
    try:
        found = getattr(importlib.import_module(match[1]), match[2], None)
    except ModuleNotFoundError:
        return None
    is_contract = isinstance(found, type) and issubclass(found, Contract) and to_qualified_name(found) == name
    return found if is_contract else None


CONTRACTS = JSONSerializer(
    object_encoder="tasks.core.results.encode_contract", object_decoder="tasks.core.results.decode_contract"
)
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
