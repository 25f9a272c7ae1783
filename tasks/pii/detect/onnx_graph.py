"""A model's 4-bit matrix products as 8-bit ones, which processors compute two to three times faster.

ONNX Runtime's ``MatMulNBits`` turns its 4-bit weights into floating point for every product. Here the weights become 8-bit
integers once, at loading, with one scale for each column, and the inputs in each product, with one scale for the segment:
``DynamicQuantizeMatMul``. Since a segment is read alone, what the model says of it depends on the segment alone.

The file is read through the few fields of ONNX's format (onnx.proto3, version 1.23) that matter; all others stay as they
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_INT8, _FLOAT = 3, 1
"""ONNX's numbers for data types."""
_LARGEST = 63
"""Weights use seven bits: x86 processors without VNNI add pairs of products in 16 bits, which eight would overflow."""
_FIELDS = {
    "ModelProto": {"graph": (7, "GraphProto")},
    "GraphProto": {"node": (1, "*NodeProto"), "initializer": (5, "*TensorProto")},
    "NodeProto": {"input": (1, "*string"), "op_type": (4, "string"), "attribute": (5, "*AttributeProto")},
    "AttributeProto": {"name": (1, "string"), "i": (3, "int64")},
    "TensorProto": {"dims": (1, "*int64"), "data_type": (2, "int32"), "name": (8, "string"), "raw_data": (9, "bytes")},
}


def with_integer_products(model: bytes) -> bytes:
    """The model with each 4-bit product, of weights without a place of their own for zero, as an 8-bit one."""
    document = _message_class("ModelProto").FromString(model)
    tensors = {tensor.name: tensor for tensor in document.graph.initializer}
    for node in document.graph.node:
        settings = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type != "MatMulNBits" or settings.get("bits") != 4 or len(node.input) != 3:
            continue
        packed, scales = tensors[node.input[1]], tensors[node.input[2]]
        if scales.data_type != _FLOAT or not packed.raw_data or not scales.raw_data:
            continue
        weights = _weights(packed.raw_data, scales.raw_data, settings)
        largest = np.maximum(np.abs(weights).max(axis=0), np.finfo(np.float32).tiny)
        columns = (largest / _LARGEST).astype(np.float32)
        whole = np.rint(weights / columns).astype(np.int8)
        _fill(packed, whole, _INT8)
        _fill(scales, columns, _FLOAT)
        node.op_type = "DynamicQuantizeMatMul"
        del node.attribute[:]
    return bytes(document.SerializeToString())


def _weights(packed: bytes, scales: bytes, settings: dict[str, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The matrix, ``(K, N)``, of a column's blocks with two weights a byte, 8 for zero, and one scale for each block."""
    columns, size = settings["N"], settings["block_size"]
    pairs = np.frombuffer(packed, dtype=np.uint8).reshape(columns, -1, size // 2)
    values = np.stack([pairs & 15, pairs >> 4], axis=-1).reshape(columns, -1, size).astype(np.float32) - 8
    values *= np.frombuffer(scales, dtype=np.float32).reshape(columns, -1, 1)
    return np.ascontiguousarray(values.reshape(columns, -1)[:, : settings["K"]].T)


def _fill(tensor: Any, values: np.ndarray[Any, np.dtype[Any]], data_type: int) -> None:
    tensor.dims[:] = values.shape
    tensor.data_type = data_type
    tensor.raw_data = values.tobytes()


def _message_class(name: str) -> Any:
    """Protobuf's class for one of the messages in :data:`_FIELDS`."""
    file = descriptor_pb2.FileDescriptorProto(name="onnx_graph.proto", package="onnx_graph", syntax="proto2")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for field, (number, described_kind) in fields.items():
            kind = described_kind.lstrip("*")
            entry = described.field.add(name=field, number=number, label=1 if kind == described_kind else 3)
            if kind in _FIELDS:
                entry.type, entry.type_name = entry.TYPE_MESSAGE, f".onnx_graph.{kind}"
            else:
                entry.type = getattr(entry, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"onnx_graph.{name}"))
