"""Serialization of the results of stages and flows: JSON that names contracts, read by one function, never by pickle."""

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
    """A contract as JSON with its class name, an exception as its message; no other type is allowed as a result.

    Raises:
        TypeError: The value is neither; Prefect reports the stage that returned it.
    """
    if isinstance(value, Contract):
        return {"contract": to_qualified_name(type(value)), "fields": value.model_dump(mode="json")}
    if isinstance(value, BaseException):
        return f"{type(value).__name__}: {value}"
    raise TypeError(f"a {type(value).__name__} is no contract of {contracts.__name__}")


def decode_contract(value: dict[str, Any]) -> Any:
    """The contract that :func:`encode_contract` wrote; any other object unchanged.

    A record is untrusted data from disk: it can only select a contract, and cannot import or call anything else.

    Raises:
        IntegrityError: The record names something else than a contract.
    """
    if value.keys() != {"contract", "fields"}:
        return value
    contract = _contract_of(value["contract"])
    if contract is None:
        raise _rejected(f"{value['contract']!r} in place of a contract")
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
"""The serializer of stages and flows. Prefect's own JSON serializer imports any class that a record names, and writes
a model as ``{"__class__": ..., "data": ...}``, which it then reads as a record of an older release: a finished flow returns
a dictionary, and the retry of its parent fails (Prefect 3.8.8, ``ResultRecord.coerce_old_format``)."""


def read_result(cls: type[ResultRecord[Any]], data: bytes, backup_serializer: Serializer | None = None) -> ResultRecord[Any]:
    """A recorded result, always read with :data:`CONTRACTS`.

    Prefect lets each record select its serializer, with ``pickle`` as the default: write access to its storage of results
    would allow code execution in the worker. This function therefore replaces ``ResultRecord.deserialize``, through which
    Prefect 3.8 reads every result: of a cached stage, of a retried flow, of a child run.

    Args:
        cls: The class of the record.
        data: Its bytes: the result of a stage with metadata, or the bare result of a flow.
        backup_serializer: Set if the bytes may be a bare result, for which the state of the flow names a serializer; it is
            ignored.

    Raises:
        IntegrityError: The record was not written by :data:`CONTRACTS`.
    """
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        raise _rejected("bytes that are no JSON") from None
    if not (isinstance(record, dict) and {"metadata", "serializer"} & record.keys()):
        if backup_serializer is None:
            raise _rejected("a result without its metadata")
        return cls(metadata=ResultRecordMetadata(serializer=CONTRACTS), result=CONTRACTS.loads(data))
    metadata = record.get("metadata")
    metadata, result = metadata if isinstance(metadata, dict) else {}, record.get("result")
    if metadata.get("serializer") != CONTRACTS.model_dump() or not isinstance(result, str):
        named = metadata.get("serializer", record.get("serializer"))
        kind = named.get("type") if isinstance(named, dict) else named
        raise _rejected(f"the serializer {str(kind)[:40]!r}", str(metadata.get("storage_key"))[:200])
    kept = {name: metadata.get(name) for name in ("storage_key", "expiration", "storage_block_id")}
    return cls(metadata=ResultRecordMetadata(**kept, serializer=CONTRACTS), result=CONTRACTS.loads(result.encode()))


def _read_parts(cls: type[ResultRecord[Any]], result: bytes, metadata: bytes) -> ResultRecord[Any]:
    """The same for a result and metadata in separate files."""
    return read_result(cls, b'{"metadata":' + metadata + b',"result":' + json.dumps(result.decode()).encode() + b"}")


# One entry point for all readers; tests/flows/test_records.py fails if Prefect adds another.
ResultRecord.deserialize = classmethod(read_result)  # type: ignore[method-assign, assignment]
ResultRecord.deserialize_from_result_and_metadata = classmethod(_read_parts)  # type: ignore[method-assign, assignment]


def _rejected(found: str, key: str | None = None) -> IntegrityError:
    error = IntegrityError(
        "a recorded result" + (f" ({key})" if key else ""),
        found,
        "a record that this project wrote: JSON that names contracts",
        "Remove the record from Prefect's storage of results, and find out who wrote it; its stage runs again.",
    )
    # Prefect silently ignores a cached record that cannot be read; the stage then runs and replaces it.
    logger.error("%s", error)
    return error
