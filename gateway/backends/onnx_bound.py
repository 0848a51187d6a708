"""Small batches whose arrays ONNX Runtime knows beforehand.

A run by names looks each array up anew, asks Python what it is, and makes new arrays for the answer: more than a
microsecond, a tenth of a request that comes alone. Here the arrays of a batch size are bound once, the batch is
gathered into them, and the answer is read out of them. They are used again by the next batch: one thread at a time.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.backends.base import Array, Signature, numpy_dtype
from gateway.backends.samples import Call, Samples

MAX_ROWS = 8
"""Larger batches share a run's fixed cost among so many that it no longer shows."""

MAX_BYTES = 2**20
"""Of all sizes together: they stay as long as the version."""


MAX_ROW_BYTES = 2**16
"""Inputs of a row: a larger one runs where its message lies, and is not gathered."""


@dataclass(frozen=True, slots=True)
class Bound:
    """`inputs` filled, `run` called: `outputs` are the answer."""

    rows: int
    """1 without a batch dimension."""
    inputs: list[Array]
    outputs: list[Array]
    run: Callable[[], None]


def bind_sizes(session: Any, signature: Signature, samples: Samples, call: Call, max_rows: int) -> list[Bound]:
    """One for each size from 1. None for a model of which it is not certain that it fits: free sizes, text,
    a device, or an answer that is not the same by both ways.
    """
    specs = (*signature.inputs, *signature.outputs)
    inner = [spec.shape[1:] if signature.batched else spec.shape for spec in specs]
    if any(spec.datatype in ("BYTES", "BF16") for spec in specs) or any(size < 0 for shape in inner for size in shape):
        return []
    if session.get_providers() != ["CPUExecutionProvider"]:
        return []
    sizes = [math.prod(shape) * numpy_dtype(spec.datatype).itemsize for spec, shape in zip(specs, inner, strict=True)]
    row_bytes = sum(sizes)
    if sum(sizes[: len(signature.inputs)]) > MAX_ROW_BYTES:
        return []
    found: list[Bound] = []
    room = MAX_BYTES
    for rows in range(1, min(max_rows, MAX_ROWS) + 1) if signature.batched else (1,):
        room -= rows * row_bytes
        if room < 0:
            break
        bound = _bind(session, signature, samples, call, rows if signature.batched else None)
        if bound is None:
            return []
        found.append(bound)
    return found


def _bind(session: Any, signature: Signature, samples: Samples, call: Call, rows: int | None) -> Bound | None:
    """None: the model does not do what its signature says, or not twice the same."""
    inputs = samples.make(rows)
    expected = call(inputs)
    outputs = [np.zeros_like(array, order="C") for array in expected]
    for spec, array in zip(signature.outputs, expected, strict=True):
        if array.shape != (spec.shape if rows is None else (rows, *spec.shape[1:])) or not array.size:
            return None
    binding = session.io_binding()
    for specs, arrays, bind in (
        (signature.inputs, inputs, binding.bind_input),
        (signature.outputs, outputs, binding.bind_output),
    ):
        for spec, array in zip(specs, arrays, strict=True):
            bind(spec.name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
    run = functools.partial(session._sess.run_with_iobinding, binding._iobinding, None)
    run()
    same = all(np.array_equal(a, b, equal_nan=b.dtype.kind == "f") for a, b in zip(outputs, expected, strict=True))
    return Bound(rows or 1, inputs, outputs, run) if same else None
