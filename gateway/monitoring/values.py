"""One field of some rows, as a tensor wants it: numbers of its datatype, text, or lists whose length varies by row.

A value that the datatype cannot hold is refused, never bent: 1.5 is no INT64, 300 no UINT8, and a missing number is NaN
where there is one and an error where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gateway.backends.base import numpy_dtype

Array = np.ndarray[Any, np.dtype[Any]]

_FLOATS = ("FP16", "FP32", "FP64", "BF16")


class Bad(ValueError):
    """A value that cannot be the datatype's; `row` counts from the first of the array given."""

    def __init__(self, row: int, text: str) -> None:
        super().__init__(text)
        self.row = row


@dataclass(frozen=True, slots=True)
class Values:
    """Rows of one field. Either `numbers` or `text` is there; `offsets` where rows differ in length: row i is
    flat[offsets[i]:offsets[i + 1]].
    """

    n_rows: int
    numbers: Array | None = None
    """[n_rows, *shape] of the tensor's type (BF16 as float32); flat when there are `offsets`."""
    text: Any = None
    """pyarrow.StringArray, n_rows x width values in order. Nothing and the empty text are the same."""
    width: int = 1
    """Values in a row; -1 with `offsets`."""
    offsets: Array | None = None

    @property
    def n_bytes(self) -> int:
        return int(self.numbers.nbytes if self.numbers is not None else self.text.nbytes)

    def matrix(self) -> Array:
        """Numbers as [n_rows, width]."""
        assert self.numbers is not None
        assert self.offsets is None
        return self.numbers.reshape(self.n_rows, self.width)

    def column(self, at: int) -> Any:
        """Value `at` of each row: a NumPy array, or Arrow text."""
        if self.text is None:
            return self.matrix()[:, at]
        return self.text if self.width == 1 else self.text.take(np.arange(at, len(self.text), self.width))

    def by_length(self) -> Iterator[tuple[Array, Array]]:
        """(rows, their numbers as a matrix) for each length there is."""
        if self.offsets is None:
            yield np.arange(self.n_rows), self.matrix()
            return
        assert self.numbers is not None
        lengths = np.diff(self.offsets)
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            yield rows, self.numbers[self.offsets[rows][:, None] + np.arange(length)]

    def lengths(self) -> Array:
        """Numbers in each row, or bytes of its text."""
        if self.text is None:
            return np.diff(self.offsets) if self.offsets is not None else np.full(self.n_rows, self.width)
        n_bytes = pc.binary_length(self.text).to_numpy(zero_copy_only=False)
        return np.asarray(n_bytes.reshape(self.n_rows, self.width).sum(axis=1))


def wanted_type(datatype: str) -> pa.DataType:
    """What a file's column is read as on its way to the datatype."""
    if datatype in _FLOATS:
        return pa.float64()
    return {"BYTES": pa.string(), "BOOL": pa.bool_(), "UINT64": pa.uint64()}.get(datatype, pa.int64())


def from_arrow(array: Any, datatype: str) -> Values:
    """Bad names the first row that is at fault."""
    n_rows = len(array)
    array, offsets = _flattened(array)
    lengths = None if offsets is None else np.diff(offsets)
    width = 1 if lengths is None else int(lengths[0]) if n_rows and (lengths == lengths[0]).all() else -1
    try:
        if datatype == "BYTES":
            if width < 0:
                raise Bad(int(np.argmax(lengths != lengths[0])), "lists of text of different lengths")  # type: ignore[index]
            return Values(n_rows, text=_text(array), width=width)
        numbers = _numbers(array, datatype)
    except Bad as bad:
        if offsets is not None and width != -1:
            bad.row //= max(1, width)
        elif offsets is not None:
            bad.row = int(np.searchsorted(offsets, bad.row, side="right")) - 1
        raise
    if width < 0:
        return Values(n_rows, numbers, width=-1, offsets=offsets)
    return Values(n_rows, numbers.reshape(n_rows, width), width=width)


def from_numpy(array: Array, datatype: str) -> Values:
    """Of [n_rows, ...]; the shape stays."""
    width = int(np.prod(array.shape[1:], dtype=np.int64))
    if datatype == "BYTES" or array.dtype.kind in "US":
        values = from_arrow(pa.array(array.ravel(), pa.string() if array.dtype.kind == "U" else None), datatype)
        return Values(len(array), text=values.text, width=width)
    if array.dtype.kind not in "biuf":
        raise Bad(0, f"got an array of {array.dtype}, expected numbers ({datatype})")
    try:
        numbers = _cast(array.ravel(), datatype)
    except Bad as bad:
        bad.row //= max(1, width)
        raise
    return Values(len(array), numbers.reshape(array.shape), width=width)


def _flattened(array: Any) -> tuple[Any, Array | None]:
    """The innermost values of a list column, and where each row begins in them."""
    offsets: Array | None = None
    while pa.types.is_nested(array.type):
        if not (
            pa.types.is_list(array.type)
            or pa.types.is_large_list(array.type)
            or pa.types.is_fixed_size_list(array.type)
        ):
            raise Bad(0, f"got {array.type}, expected values or lists")
        if array.null_count:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise Bad(_row_of(row, offsets), "got null, expected a list of values")
        sizes = pc.list_value_length(array).to_numpy(zero_copy_only=False).astype(np.int64)
        inner = np.concatenate(([0], np.cumsum(sizes)))
        offsets = inner if offsets is None else inner[offsets]
        array = array.flatten()
    return array, offsets


def _row_of(at: int, offsets: Array | None) -> int:
    return at if offsets is None else int(np.searchsorted(offsets, at, side="right")) - 1


def _text(array: Any) -> Any:
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if pa.types.is_null(array.type):
        array = array.cast(pa.string())
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            array = array.cast(pa.large_string())
        except pa.ArrowInvalid:
            for row, value in enumerate(array.to_pylist()):
                try:
                    (value or b"").decode()
                except UnicodeDecodeError:
                    raise Bad(row, "got bytes that are no UTF-8, expected text") from None
    if not (pa.types.is_string(array.type) or pa.types.is_large_string(array.type)):
        raise Bad(0, f"got {array.type}, expected text (BYTES)")
    return array.fill_null("") if array.null_count else array


def _numbers(array: Any, datatype: str) -> Array:
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if pa.types.is_decimal(kind) or pa.types.is_null(kind):
        array = array.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        shown = next((value for value in array.to_pylist() if value is not None), None)
        raise Bad(0, f"got {kind} such as {str(shown)[:40]!r}, expected numbers ({datatype})")
    if array.null_count:
        if datatype not in _FLOATS:
            row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
            raise Bad(row, f"has no value, expected {_what(datatype)} ({datatype}), which cannot be missing")
        # Integers with gaps: Arrow makes them float64 with NaN.
        return _cast(array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), datatype)
    return _cast(array.to_numpy(zero_copy_only=False), datatype)


def _cast(values: Array, datatype: str) -> Array:
    """`values` is flat and of numbers."""
    if datatype in _FLOATS:
        target: Any = np.float32 if datatype == "BF16" else numpy_dtype(datatype)
        with np.errstate(all="ignore"):  # beyond the type's range is infinity, as the caller of a model would have it
            result = values.astype(target)
        return _rounded_to_bf16(result) if datatype == "BF16" else result
    target = numpy_dtype(datatype)
    if values.dtype == target:
        return values
    if values.dtype.kind == "f":
        wrong = ~(np.isfinite(values) & (np.trunc(values) == values))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise Bad(row, f"got {values[row]:g}, expected {_what(datatype)} ({datatype})")
    lowest, highest = (0, 1) if datatype == "BOOL" else (int(np.iinfo(target).min), int(np.iinfo(target).max))
    outside = (values < lowest) | (values > highest)
    if outside.any():
        row = int(np.argmax(outside))
        raise Bad(row, f"got {values[row]}, expected {lowest} to {highest} ({datatype})")
    return values.astype(target)


def _rounded_to_bf16(values: Array) -> Array:
    """To the nearest, ties to even; NaN stays one."""
    bits = values.view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(values), values, rounded.view(np.float32))


def bf16_bits(values: Array) -> Array:
    """uint16, as a backend takes them."""
    return (np.ascontiguousarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def _what(datatype: str) -> str:
    return "true or false" if datatype == "BOOL" else "a whole number"
