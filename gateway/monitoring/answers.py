"""What a model answers to the rows of a data set, for a profile of its outputs. Rows of one length go together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa

from gateway.backends.base import Array, Signature, TensorSpec
from gateway.errors import GatewayError
from gateway.monitoring.values import Values, bf16_bits, from_numpy

Run = Callable[[list[Array]], list[Array]]
"""Arrays in signature order, as Backend.run."""

MAX_RUN_ROWS = 4096
RUN_BYTES = 2 * 2**20
"""Inputs of one run: what a model makes of them inside may be a hundred times as much."""


class RowRefused(GatewayError):
    """The model has no answer for one row; `row` counts from the first of those given."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(text)
        self.row = row


def answers(run: Run, signature: Signature, inputs: Mapping[str, Values]) -> dict[str, Values]:
    """Outputs by name; rows in no order: a distribution has none. RowRefused for the first row of a run that fails."""
    n_rows = next(iter(inputs.values())).n_rows
    pieces: list[list[Array]] = []
    for rows in _groups(inputs, n_rows):
        arrays = [_array(spec, inputs[spec.name], rows, signature.batched) for spec in signature.inputs]
        row_bytes = max(1, sum(array.nbytes for array in arrays) // len(rows))
        step = max(1, min(MAX_RUN_ROWS, RUN_BYTES // row_bytes)) if signature.batched else 1
        for at in range(0, len(rows), step):
            part = [array[at : at + step] for array in arrays]
            pieces.append(_run(run, part, rows[at : at + step], signature.batched))
    return {spec.name: _joined([outputs[at] for outputs in pieces], spec) for at, spec in enumerate(signature.outputs)}


def _groups(inputs: Mapping[str, Values], n_rows: int) -> list[Array]:
    """Rows whose inputs have one shape."""
    lengths = [values.lengths() for values in inputs.values() if values.offsets is not None]
    if not lengths:
        return [np.arange(n_rows)]
    _, group = np.unique(np.stack(lengths), axis=1, return_inverse=True)
    return [np.flatnonzero(group == each) for each in range(int(group.max()) + 1)]


def _array(spec: TensorSpec, values: Values, rows: Array, batched: bool) -> Array:
    """Rows as the model takes them: the row's shape from the signature, one open dimension filled by what there is."""
    if values.text is not None:
        found = np.array(values.text.to_pylist(), np.object_).reshape(values.n_rows, values.width)[rows]
    elif values.offsets is not None:
        assert values.numbers is not None
        length = int(values.offsets[rows[0] + 1] - values.offsets[rows[0]])
        found = values.numbers[values.offsets[rows][:, None] + np.arange(length)]
    else:
        assert values.numbers is not None
        found = values.numbers if len(rows) == values.n_rows else values.numbers[rows]
    shape = spec.shape[1:] if batched else spec.shape
    if found.shape[1:] != shape and sum(size < 0 for size in shape) <= 1 and found.size:
        found = found.reshape(len(rows), *shape)
    return bf16_bits(found) if spec.datatype == "BF16" else np.ascontiguousarray(found)


def _run(run: Run, arrays: list[Array], rows: Array, batched: bool) -> list[Array]:
    try:
        if batched:
            return run(arrays)
        return [output[np.newaxis] for output in run([array[0] for array in arrays])]
    except GatewayError as error:
        if len(rows) > 1:  # which one? The first half's fault is named first
            middle = len(rows) // 2
            for part in (slice(0, middle), slice(middle, None)):
                _run(run, [array[part] for array in arrays], rows[part], batched)
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        raise RowRefused(int(rows[0]), f"{error}{cause}"[:400]) from None


def _joined(parts: list[Array], spec: TensorSpec) -> Values:
    if spec.datatype == "BYTES":
        texts = [
            value.decode(errors="replace") if isinstance(value, bytes) else value for p in parts for value in p.flat
        ]
        n_rows = sum(len(part) for part in parts)
        return Values(n_rows, text=pa.array(texts, pa.string()), width=len(texts) // max(1, n_rows))
    if spec.datatype == "BF16":
        parts = [(part.astype(np.uint32) << 16).view(np.float32) for part in parts]
    if len({part.shape[1:] for part in parts}) == 1:
        array = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return from_numpy(array, spec.datatype)
    lengths = np.concatenate([np.full(len(part), part[0].size) for part in parts])
    flat = np.concatenate([part.ravel() for part in parts])
    return Values(len(lengths), flat, width=-1, offsets=np.concatenate(([0], np.cumsum(lengths))))
