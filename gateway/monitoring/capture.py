"""Rows of live requests on their way to a profile: what is asked of the workers, and the pieces they hand in.

Both travel as reports in the store. A piece is an npz as a data set is: `input:<name>` and `output:<name>`, rows first.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.backends.base import Array, Signature
from gateway.errors import InvalidArgument

ORDER_KIND, ROWS_KIND = "capture_order", "capture"

MAX_ROWS = 100_000
"""Enough for quantiles of a hundredth; a baseline of more is better built from a data set."""

MAX_BYTES = 32 * 2**20
"""Of one capture in one worker: it is kept in memory, then in the store."""

ORDER_TTL_S = 600.0
"""After that the workers forget what they were asked, whoever asked."""


@dataclass(frozen=True, slots=True)
class Order:
    """Wanted: the next `rows` rows of a version, outputs beside them."""

    id: str
    model: str
    version: str
    rows: int
    at_s: float
    """Wall time: see ORDER_TTL_S."""

    def body(self) -> bytes:
        return json.dumps({"rows": self.rows}).encode()

    @classmethod
    def from_report(cls, key: str, model: str, version: str, body: bytes, at_s: float) -> Order:
        return cls(key, model, version, int(json.loads(body)["rows"]), at_s)


def piece_key(order: str, number: int, rows: int) -> str:
    """Of the report; says how many rows are in it, so that they can be counted unread."""
    return f"{order}/{number:06}/{rows}"


def key_parts(key: str) -> tuple[str, int]:
    """Order and rows."""
    order, _, rows = key.split("/")
    return order, int(rows)


def encode(signature: Signature, runs: Sequence[tuple[Sequence[Array], Sequence[Array]]]) -> bytes:
    """A piece of some runs' inputs and outputs. InvalidArgument when rows differ in shape from run to run."""
    arrays: dict[str, Array] = {}
    for at, spec in enumerate(signature.inputs):
        arrays[f"input:{spec.name}"] = _stacked(spec.name, [_plain(inputs[at], spec.datatype) for inputs, _ in runs])
    for at, spec in enumerate(signature.outputs):
        arrays[f"output:{spec.name}"] = _stacked(spec.name, [_plain(outputs[at], spec.datatype) for _, outputs in runs])
    return _npz(arrays)


def join(pieces: Sequence[bytes], rows: int) -> bytes:
    """The first `rows` rows of all pieces, as one npz."""
    parts: dict[str, list[Array]] = {}
    for piece in pieces:
        with np.load(io.BytesIO(piece), allow_pickle=False) as arrays:
            for name in arrays.files:
                parts.setdefault(name, []).append(arrays[name])
    return _npz({name: _stacked(name.partition(":")[2], found)[:rows] for name, found in parts.items()})


def _npz(arrays: Mapping[str, Array]) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()


def _stacked(name: str, arrays: list[Array]) -> Array:
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        shown = " and ".join(str(list(shape)) for shape in sorted(shapes)[:2])
        raise InvalidArgument(f"tensor {name!r}: live rows of shape {shown}; build the profile from a data set")
    return np.concatenate(arrays)


def _plain(array: Array, datatype: str) -> Array:
    """As a data set has it: text as unicode, BF16 as FP32."""
    if datatype == "BYTES":
        texts = [each.decode(errors="replace") if isinstance(each, bytes) else each for each in array.ravel().tolist()]
        return np.array(texts, np.str_).reshape(array.shape)
    if datatype == "BF16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array
