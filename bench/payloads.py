"""The one place where requests are made and answers are read, for every benchmark.

Written on its own little protobuf encoder: no generated code, no product code, so that the bytes sent stay the same
bytes whatever happens to the gateway.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence

import numpy as np

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVING = b"\x08\x01"  # HealthCheckResponse{status: SERVING}

_DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DATATYPES.items()} | {np.dtype(object): "BYTES"}


def infer_request(
    model: str,
    inputs: Mapping[str, np.ndarray],
    *,
    version: str = "",
    request_id: str = "",
    outputs: Sequence[str] = (),
) -> bytes:
    """A serialized ModelInferRequest; every tensor travels in raw_input_contents."""
    message = bytearray(_text(1, model))
    if version:
        message += _text(2, version)
    if request_id:
        message += _text(3, request_id)
    for name, tensor in inputs.items():
        shape = b"".join(_varint(n) for n in tensor.shape)
        message += _bytes(5, _text(1, name) + _text(2, _NAMES[tensor.dtype]) + _bytes(3, shape))
    for name in outputs:
        message += _bytes(6, _text(1, name))
    for tensor in inputs.values():
        message += _bytes(7, _raw(tensor))
    return bytes(message)


def rest_json(inputs: Mapping[str, np.ndarray]) -> bytes:
    """A REST inference request with all data as JSON numbers, nested by rows as most callers send it."""
    tensors = [
        {"name": name, "datatype": _NAMES[tensor.dtype], "shape": list(tensor.shape), "data": listed(tensor)}
        for name, tensor in inputs.items()
    ]
    return json.dumps({"inputs": tensors}).encode()


def _raw(tensor: np.ndarray) -> bytes:
    """Little-endian values; texts each with four bytes of length before it."""
    if tensor.dtype != object:
        return np.ascontiguousarray(tensor).tobytes()
    return b"".join(struct.pack("<I", len(text)) + text for text in tensor.flat)


def listed(tensor: np.ndarray) -> list:
    """Nested as JSON has it."""
    return (tensor.astype(str) if tensor.dtype == object else tensor).tolist()


def rest_binary(inputs: Mapping[str, np.ndarray]) -> tuple[bytes, int]:
    """The same with all data binary, both ways: (body, length of its JSON)."""
    tensors = [
        {
            "name": name,
            "datatype": _NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": tensor.nbytes},
        }
        for name, tensor in inputs.items()
    ]
    head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
    return head + b"".join(np.ascontiguousarray(tensor).tobytes() for tensor in inputs.values()), len(head)


def grpc_frame(message: bytes) -> bytes:
    """The message as gRPC puts it on a stream: not compressed, 4 bytes of length, the bytes."""
    return b"\0" + struct.pack(">I", len(message)) + message


def infer_outputs(message: bytes) -> dict[str, np.ndarray]:
    """The tensors of a serialized ModelInferResponse that answers raw, by output name."""
    specs: list[tuple[str, str, tuple[int, ...]]] = []
    raw: list[bytes] = []
    for number, value in _fields(message):
        if number == 5 and isinstance(value, bytes):
            specs.append(_output_spec(value))
        elif number == 6 and isinstance(value, bytes):
            raw.append(value)
    if len(raw) != len(specs):
        raise ValueError(f"the answer names {len(specs)} outputs and carries {len(raw)} raw tensors")
    return {
        name: np.frombuffer(data, _DATATYPES[datatype]).reshape(shape)
        for (name, datatype, shape), data in zip(specs, raw, strict=True)
    }


def _output_spec(message: bytes) -> tuple[str, str, tuple[int, ...]]:
    name = datatype = ""
    shape: list[int] = []
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            name = value.decode()
        elif number == 2 and isinstance(value, bytes):
            datatype = value.decode()
        elif number == 3 and isinstance(value, int):
            shape.append(value)
        elif number == 3 and isinstance(value, bytes):
            at = 0
            while at < len(value):
                size, at = _read_varint(value, at)
                shape.append(size)
    return name, datatype, tuple(shape)


def _varint(n: int) -> bytes:
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def _bytes(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    return _bytes(number, text.encode())


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if not byte & 0x80:
            return value, at
        shift += 7


def _fields(message: bytes) -> list[tuple[int, int | bytes]]:
    found: list[tuple[int, int | bytes]] = []
    at = 0
    while at < len(message):
        tag, at = _read_varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _read_varint(message, at)
            found.append((tag >> 3, value))
            continue
        if kind == 2:
            size, at = _read_varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} in field {tag >> 3}: expected 0, 1, 2 or 5")
        if at + size > len(message):
            raise ValueError(f"field {tag >> 3} wants {size} bytes, the answer has {len(message) - at} left")
        found.append((tag >> 3, message[at : at + size]))
        at += size
    return found
