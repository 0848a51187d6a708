"""Made-up inputs for warm-up and for finding out how a model treats rows.

Random where a model's cost may depend on values (a forest of zeros takes one path), harmless where values have meaning:
integers are 0 or 1 (indices, token ids), text is a digit. A model that refuses these is tried with zeros, and with
other sizes where a dimension is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.backends.base import Array, TensorSpec, numpy_dtype

MAX_SAMPLE_BYTES = 32 * 2**20
"""A free dimension tried at 224 must not fill the memory when a tensor has four of them."""

MAX_MESSAGE_BYTES = 2**31
"""A fixed shape is tried as it is, up to what protobuf can carry: nobody will ever send more."""

_FREE_SIZES = (8, 1, 32, 224)  # short, single, a small image, a usual image
_TEXT_BYTES = 16  # what a string counts for
_POOL_SIZE = 4099  # prime, so that rows of a power of two differ

Call = Callable[[list[Array]], list[Array]]


@dataclass(frozen=True, slots=True)
class Samples:
    """A way of making inputs that a model has accepted."""

    specs: tuple[TensorSpec, ...]
    kind: str
    """random, zeros or blank (zeros, and empty text)."""
    free_size: int
    """Size of every -1 dimension but the batch dimension: equal, because free dimensions often must agree."""

    def make(self, rows: int | None) -> list[Array]:
        """Inputs with `rows` rows, or of whatever size dimension 0 has when `rows` is None."""
        return [_fill(spec.datatype, self._shape(spec, rows), self.kind) for spec in self.specs]

    def n_bytes(self, rows: int | None) -> int:
        """Size of all inputs together."""
        return sum(_n_bytes(spec.datatype, self._shape(spec, rows)) for spec in self.specs)

    def _shape(self, spec: TensorSpec, rows: int | None) -> tuple[int, ...]:
        shape = tuple(self.free_size if size < 0 else size for size in spec.shape)
        return shape if rows is None else (rows, *shape[1:])


def find_samples(call: Call, specs: Sequence[TensorSpec], rows: int | None) -> tuple[Samples | None, list[Array], str]:
    """The first samples that `call` accepts, and what it answered; else None, [] and the first refusal."""
    refusal = ""
    for samples in _candidates(tuple(specs), rows):
        try:
            return samples, call(samples.make(rows)), ""
        except Exception as error:
            refusal = refusal or str(error)
    return None, [], refusal


def _candidates(specs: tuple[TensorSpec, ...], rows: int | None) -> Iterator[Samples]:
    free = any(size < 0 for spec in specs for size in (spec.shape if rows is None else spec.shape[1:]))
    text = any(spec.datatype == "BYTES" for spec in specs)
    for free_size in _FREE_SIZES if free else _FREE_SIZES[:1]:
        for kind in ("random", "zeros", "blank") if text else ("random", "zeros"):
            samples = Samples(specs, kind, free_size)
            if samples.n_bytes(rows) <= (MAX_SAMPLE_BYTES if free else MAX_MESSAGE_BYTES):
                yield samples


def _n_bytes(datatype: str, shape: tuple[int, ...]) -> int:
    return math.prod(shape) * (_TEXT_BYTES if datatype == "BYTES" else numpy_dtype(datatype).itemsize)


def _fill(datatype: str, shape: tuple[int, ...], kind: str) -> Array:
    dtype = numpy_dtype(datatype)
    if kind != "random":
        return np.full(shape, "" if kind == "blank" else "0", dtype) if datatype == "BYTES" else np.zeros(shape, dtype)
    rng = np.random.default_rng(17)  # the same at every start: a cost that changes is then the machine's
    pool: Array
    if datatype in ("FP16", "FP32", "FP64"):
        pool = rng.standard_normal(_POOL_SIZE).astype(dtype)
    elif datatype == "BF16":
        pool = (rng.standard_normal(_POOL_SIZE).astype(np.float32).view(np.uint32) >> 16).astype(dtype)
    elif datatype == "BYTES":
        pool = np.array(["0", "1"], object)[rng.integers(0, 2, _POOL_SIZE)]
    else:
        pool = rng.integers(0, 2, _POOL_SIZE).astype(dtype)
    return np.resize(pool, math.prod(shape)).reshape(shape)
