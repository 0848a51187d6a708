"""The binary tensor extension: JSON first, the tensors' bytes behind it in the order of the JSON."""

from __future__ import annotations

from math import prod
from typing import Any

from gateway.backends.base import Signature, numpy_dtype
from gateway.errors import InvalidArgument

_LENGTH_HEADER = "Inference-Header-Content-Length"


def json_length(field: bytes, n_body: int) -> int:
    """The header's value: how many bytes of the body are JSON."""
    if not field.isdigit() or len(field) > 19 or int(field) > n_body:
        shown = field[:40].decode("latin-1")
        raise InvalidArgument(
            f"{_LENGTH_HEADER}: got {shown!r}, expected the bytes of JSON in the body, at most {n_body}"
        )
    return int(field)


class Tail:
    """What lies behind the JSON; `take` hands it out piece by piece, `finish` refuses what is left."""

    def __init__(self, body: Any, start: int) -> None:
        self._bytes = memoryview(body)
        self._at = start

    def take(self, path: str, n: int) -> memoryview:
        left = self._bytes.nbytes - self._at
        if n > left:
            raise InvalidArgument(
                f"{path}binary_data_size: got {n}, but {left} bytes are left in the body behind the JSON"
            )
        piece = self._bytes[self._at : self._at + n]
        self._at += n
        return piece

    def finish(self) -> None:
        left = self._bytes.nbytes - self._at
        if left:
            raise InvalidArgument(f"body: {left} bytes follow the last tensor; binary_data_size counts too few")


def raw_input(signature: Signature, body: Any) -> tuple[str, str, list[int], Any]:
    """(name, datatype, shape, data) of a request whose body is the one tensor and nothing else: a batch of 1.

    A BYTES tensor is one element, the whole body.
    """
    n_body = len(body)
    if len(signature.inputs) != 1:
        raise InvalidArgument(
            f"{_LENGTH_HEADER}: 0 means that the body is the one input's data, but the model has "
            f"{len(signature.inputs)} inputs; send JSON in front of the tensors"
        )
    spec = signature.inputs[0]
    shape = [1, *spec.shape[1:]] if signature.batched else list(spec.shape)
    n_free = sum(size < 0 for size in shape)
    if n_free > 1:
        raise InvalidArgument(
            f"input {spec.name!r} has shape {list(spec.shape)}: with {_LENGTH_HEADER} 0 at most one dimension besides "
            f"the batch may be variable; send JSON in front of the tensor"
        )
    if spec.datatype == "BYTES":
        if prod(1 if size < 0 else size for size in shape) != 1:
            raise InvalidArgument(f"input {spec.name!r} has shape {list(spec.shape)}: one string cannot fill it")
        shape = [1 if size < 0 else size for size in shape]
        return spec.name, spec.datatype, shape, n_body.to_bytes(4, "little") + bytes(body)
    row = numpy_dtype(spec.datatype).itemsize * prod(size for size in shape if size >= 0)
    if n_free and row and n_body % row == 0:
        shape = [n_body // row if size < 0 else size for size in shape]
    elif n_free or n_body != row:
        wanted = f"a multiple of {row}" if n_free else str(row)
        raise InvalidArgument(
            f"body: got {n_body} bytes, expected {wanted} for input {spec.name!r}, {spec.datatype} {shape}"
        )
    return spec.name, spec.datatype, shape, body
