"""Tensors as JSON has them: lists, nested by the shape or flat, into packed bytes; and these into what orjson writes.

JSON has no NaN and no Infinity. Both ways they are the strings "NaN", "Infinity" and "-Infinity", as in protobuf's JSON
mapping: any JSON parser reads them, and NumPy turns them into the numbers they name.
"""

from __future__ import annotations

import struct
from array import array
from itertools import chain
from math import isfinite, prod
from typing import Any

import numpy as np

from gateway.backends.base import numpy_dtype
from gateway.errors import InvalidArgument
from gateway.serving.rest.message import Buffer

_ARRAY_CODES = {
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP32": "f",
    "FP64": "d",
}
BINARY_ONLY = ("FP16", "BF16")

_SPECIAL = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_FLOATS, _INTS, _BOOLS, _TEXTS = frozenset((float, int)), frozenset((int,)), frozenset((bool,)), frozenset((str,))
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a string", list: "a list"}
_NAMES = {dict: "an object", type(None): "null", **_WORDS}
FEW = 64
"""Elements below which Python's own sum is quicker than a call of NumPy."""

_pack_length = struct.Struct("<I").pack


def encode(path: str, datatype: str, shape: list[int], data: Any) -> Buffer:
    """Packed bytes of `data`; InvalidArgument names the element by its path below `path`."""
    if type(data) is not list:
        raise InvalidArgument(f"{path}: got {_NAMES[type(data)]}, expected a list")
    flat = data
    if data and type(data[0]) is list:
        flat = _flatten(path, data, shape)
    if len(flat) != prod(shape):
        raise InvalidArgument(f"{path}: got {len(flat)} elements, expected {prod(shape)} for shape {shape}")
    types = frozenset(map(type, flat))
    code = _ARRAY_CODES.get(datatype)
    if code is None:
        if datatype == "BOOL":
            _check(path, flat, types, _BOOLS, bool)
            return bytes(flat)
        if datatype == "BYTES":
            _check(path, flat, types, _TEXTS, str)
            return _pack_strings(flat)
        raise InvalidArgument(
            f"{path}: {datatype} cannot be sent as JSON numbers; send it as binary tensor data (binary_data_size, "
            f"Inference-Header-Content-Length), or over gRPC"
        )
    if code in "fd":
        if not types <= _FLOATS:
            return _encode_special(path, datatype, flat, types)
        packed = array(code, flat)
        if not (isfinite(sum(packed)) if len(packed) < FEW else np.isfinite(np.frombuffer(packed, code)).all()):
            _refuse_overflow(path, flat, packed, datatype)
        return packed  # type: ignore[return-value]
    _check(path, flat, types, _INTS, int)
    try:
        return array(code, flat)  # type: ignore[return-value]
    except OverflowError:
        raise _out_of_range(path, datatype, flat) from None


def _flatten(path: str, data: list[Any], shape: list[int]) -> list[Any]:
    """Row-major elements of a list nested by `shape`."""
    rows = data
    for axis, size in enumerate(shape):
        if axis == 0:
            if len(rows) != size:
                raise InvalidArgument(f"{path}: got {len(rows)} elements, expected {size} for shape {shape}")
            continue
        if set(map(type, rows)) - {list} or set(map(len, rows)) - {size}:
            where = next(i for i, row in enumerate(rows) if type(row) is not list or len(row) != size)
            got = f"{len(rows[where])} elements" if type(rows[where]) is list else _NAMES[type(rows[where])]
            raise InvalidArgument(
                f"{path}{_index(where, shape[:axis])}: got {got}, expected {_count(size)} for shape {shape}"
            )
        rows = list(chain.from_iterable(rows))
    return rows


def _index(position: int, dims: list[int]) -> str:
    """[2][0] for the position among the elements of `dims`."""
    indexes: list[str] = []
    for size in reversed(dims):
        position, index = divmod(position, size)
        indexes.append(f"[{index}]")
    return "".join(reversed(indexes))


def _count(size: int) -> str:
    return "a list of 1 element" if size == 1 else f"a list of {size} elements"


def _check(path: str, flat: list[Any], types: frozenset[type], wanted: frozenset[type], shown: type) -> None:
    if types <= wanted:
        return
    where = next(i for i, value in enumerate(flat) if type(value) not in wanted)
    got = flat[where]
    more = " (or a whole number of more than 64 bits)" if type(got) is float and shown is int else ""
    raise InvalidArgument(
        f"{path}: element {where} is {_NAMES[type(got)]}{_value(got)}{more}, expected {_WORDS[shown]}"
    )


def _value(value: Any) -> str:
    return f" ({value!r})" if type(value) in (float, int, bool) else ""


def _encode_special(path: str, datatype: str, flat: list[Any], types: frozenset[type]) -> Buffer:
    _check(path, flat, types, _FLOATS | _TEXTS, float)
    values = []
    for i, value in enumerate(flat):
        if type(value) is str:
            if value not in _SPECIAL:
                raise InvalidArgument(
                    f'{path}: element {i} is a string, expected a number, or one of "NaN", "Infinity", "-Infinity"'
                )
            value = _SPECIAL[value]
        values.append(value)
    packed = array(_ARRAY_CODES[datatype], values)
    for i, (value, made) in enumerate(zip(values, packed, strict=True)):
        if not isfinite(made) and type(flat[i]) is not str:
            raise InvalidArgument(f"{path}: element {i} is {value!r}, which {datatype} cannot hold")
    return packed  # type: ignore[return-value]


def _refuse_overflow(path: str, flat: list[Any], packed: array[Any], datatype: str) -> None:
    for i, made in enumerate(packed):
        if not isfinite(made):
            raise InvalidArgument(f"{path}: element {i} is {flat[i]!r}, which {datatype} cannot hold")


def _out_of_range(path: str, datatype: str, flat: list[int]) -> InvalidArgument:
    info = np.iinfo(numpy_dtype(datatype))
    where = next(i for i, value in enumerate(flat) if not info.min <= value <= info.max)
    return InvalidArgument(
        f"{path}: element {where} is {flat[where]}, expected {info.min} to {info.max} for {datatype}"
    )


def _pack_strings(texts: list[str]) -> bytes:
    encoded = list(map(str.encode, texts))
    return b"".join(chain.from_iterable(zip(map(_pack_length, map(len, encoded)), encoded, strict=True)))


def decode(name: str, datatype: str, raw: memoryview) -> Any:
    """What orjson writes for a tensor of the answer: a NumPy array, or a list of strings."""
    if datatype == "BYTES":
        return _unpack_strings(name, raw)
    if datatype in BINARY_ONLY:
        raise InvalidArgument(
            f"output {name!r} is {datatype}, which JSON numbers cannot carry; ask for it as binary "
            f'(parameters: {{"binary_data": true}}), or over gRPC'
        )
    if not raw.nbytes:
        return []
    return np.frombuffer(raw.tobytes(), numpy_dtype(datatype))  # the copy is aligned, `raw` need not be


def with_special_values(values: Any) -> Any:
    """The same with NaN and the infinities as strings, when it has any: orjson would write null."""
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return values
    odd = ~np.isfinite(values)
    if not odd.any():
        return values
    # Shortest digits of the own type, not of the double that tolist would make.
    listed = [float(str(value)) for value in values] if values.dtype == np.float32 else values.tolist()
    for i in np.flatnonzero(odd).tolist():
        value = listed[i]
        listed[i] = "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return listed


def unpack(raw: memoryview) -> list[bytes]:
    """Elements of a packed BYTES tensor of our own making."""
    data, at, found = raw.tobytes(), 0, []
    end = len(data)
    while at < end:
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        found.append(data[start:at])
    return found


def pack(elements: list[bytes]) -> bytes:
    return b"".join(chain.from_iterable(zip(map(_pack_length, map(len, elements)), elements, strict=True)))


def _unpack_strings(name: str, raw: memoryview) -> list[str]:
    elements = unpack(raw)
    try:
        return [element.decode() for element in elements]
    except UnicodeDecodeError:
        raise InvalidArgument(
            f"output {name!r} holds bytes that are no UTF-8 text; ask for it as binary "
            f'(parameters: {{"binary_data": true}}), or over gRPC'
        ) from None
