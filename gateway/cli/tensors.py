"""Between a person's values and the wire: fits data to a model's inputs, turns arrays into raw tensor bytes and back.

Everything is checked here, before the first request, because here the line and column of a bad value are still known.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.cli.data import Cells, Data, Given, Rows, Tensors
from gateway.errors import ConfigError

Array = np.ndarray[Any, np.dtype[Any]]

DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": np.float32,  # NumPy has no such type: widened here, cut back on the wire
    "BYTES": np.object_,
}
_FLOATS = ("FP16", "FP32", "FP64", "BF16")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class Input:
    """One input of the model. `inner` is the shape of one row, or of the whole tensor when the model has no rows."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    inner: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name!r} {self.datatype} {list(self.shape)}"


@dataclass(frozen=True, slots=True)
class Model:
    """What ModelMetadata says, as far as sending goes. `has_rows`: every tensor begins with a free dimension."""

    name: str
    inputs: list[Input]
    has_rows: bool

    @classmethod
    def from_metadata(cls, metadata: Any) -> Model:
        """From an inference.ModelMetadataResponse."""
        shapes = [tuple(tensor.shape) for tensor in (*metadata.inputs, *metadata.outputs)]
        has_rows = bool(metadata.inputs) and all(shape[:1] == (-1,) for shape in shapes)
        inputs = []
        for tensor in metadata.inputs:
            if tensor.datatype not in DTYPES:
                raise ConfigError(f"model {metadata.name!r}: input {tensor.name!r} is {tensor.datatype}, unknown here")
            shape = tuple(tensor.shape)
            inputs.append(Input(tensor.name, tensor.datatype, shape, shape[1:] if has_rows else shape))
        return cls(metadata.name, inputs, has_rows)

    def __str__(self) -> str:
        return ", ".join(map(str, self.inputs))


def fit(data: Data, model: Model) -> dict[str, Array]:
    """Arrays by input name, rows first. ConfigError names the value's place, what came and what the model wants."""
    arrays: dict[str, Array] = {}
    match data:
        case Tensors():
            arrays = _from_tensors(data, model)
        case Cells():
            arrays = _from_cells(data, model)
        case Rows():
            arrays = _from_rows(data, model)
    n_rows = {len(array) for array in arrays.values()} if model.has_rows else {1}
    if len(n_rows) > 1:
        sizes = ", ".join(f"{name!r} has {len(array)}" for name, array in arrays.items())
        raise ConfigError(f"--data {data.source}: inputs with different numbers of rows: {sizes}")
    return arrays


# --- whole tensors


def _from_tensors(data: Tensors, model: Model) -> dict[str, Array]:
    for missing in (each for each in model.inputs if each.name not in data.tensors):
        names = ", ".join(map(repr, data.tensors)) or "none"
        raise ConfigError(f"--data {data.source}: no tensor for input {missing}; the file has {names}")
    return {each.name: _checked(data.source, each, data.tensors[each.name]) for each in model.inputs}


def _checked(source: str, wanted: Input, given: Given) -> Array:
    where = f"--data {source}: input {wanted.name!r}"
    if given.datatype is not None and given.datatype != wanted.datatype:
        raise ConfigError(f"{where}: datatype: got {given.datatype}, expected {wanted.datatype}")
    if given.shape is not None:
        flat = list(_leaves(given.data))
        if len(flat) != math.prod(given.shape):
            raise ConfigError(
                f"{where}: got {len(flat)} values, expected {math.prod(given.shape)} for shape {given.shape}"
            )
        array = _convert(flat, wanted.datatype, False, lambda index: f"{where}, value {index + 1}").reshape(given.shape)
    else:
        array = _cast(where, given.data, wanted.datatype)
    if len(array.shape) != len(wanted.shape) or any(
        size not in (-1, got) for size, got in zip(wanted.shape, array.shape, strict=True)
    ):
        raise ConfigError(f"{where}: got shape {list(array.shape)}, expected {list(wanted.shape)}")
    return array


def _cast(where: str, array: Array, datatype: str) -> Array:
    """An array of a file into the input's type, when no value changes its meaning by it."""
    target = np.dtype(DTYPES[datatype])
    kind = array.dtype.kind
    if datatype == "BYTES":
        if kind in "US":
            flat = [value.encode() if isinstance(value, str) else value for value in array.ravel().tolist()]
            return _objects(flat).reshape(array.shape)
    elif datatype in _FLOATS and kind in "fiu":
        with np.errstate(over="ignore"):
            cast = array.astype(target)
        if not (np.isinf(cast) & ~np.isinf(array)).any():
            return cast
        raise ConfigError(f"{where}: holds values too large for {datatype}")
    elif target.kind in "iu" and kind in "iu":
        cast = array.astype(target)
        if (cast == array).all():
            return cast
        raise ConfigError(f"{where}: holds values out of range for {datatype}")
    elif datatype == "BOOL" and kind == "b":
        return array
    raise ConfigError(f"{where}: got an array of {array.dtype}, expected {datatype}")


# --- columns and rows


def _from_cells(data: Cells, model: Model) -> dict[str, Array]:
    by_name = dict(zip(data.names, data.columns, strict=True))
    if all(each.name in by_name for each in model.inputs):
        return {
            each.name: _rows_array(
                by_name[each.name] if model.has_rows else [by_name[each.name]],
                each,
                data.is_text,
                lambda row, _, name=each.name: f"--data {data.source}: {data.where(row, name)}",  # type: ignore[misc]
                whole=not model.has_rows,
            )
            for each in model.inputs
        }
    only = model.inputs[0] if len(model.inputs) == 1 else None
    n_features = math.prod(only.inner) if only else -1
    if only and model.has_rows and (n_features == len(data.names) or only.inner == (-1,)):
        lengths = {len(column) for column in data.columns}
        if len(lengths) > 1:
            raise ConfigError(f"--data {data.source}: columns of different lengths: {sorted(lengths)}")
        flat = Input(only.name, only.datatype, only.shape, (len(data.names),))
        rows = [list(row) for row in zip(*data.columns, strict=True)]
        array = _rows_array(
            rows, flat, data.is_text, lambda row, column: f"--data {data.source}: {data.where(row, data.names[column])}"
        )
        return {only.name: array.reshape(len(rows), *only.inner) if n_features > 0 else array}
    names = ", ".join(map(repr, data.names[:8])) + (", ..." if len(data.names) > 8 else "")
    missing = [each.name for each in model.inputs if each.name not in by_name]
    cure = f"no column is named {', '.join(map(repr, missing[:8]))}{', ...' if len(missing) > 8 else ''}"
    if only and model.has_rows and n_features > 0:
        cure = f"give exactly {n_features} columns, in order" if n_features > 1 else f"name a column {only.name!r}"
    elif not model.has_rows:
        cure = "the model has no row dimension: give whole tensors by input name, as JSON or npz"
    raise ConfigError(
        f"--data {data.source}: got {len(data.names)} columns ({names}), "
        f"expected the inputs of {model.name!r}: {model}; {cure}"
    )


def _from_rows(data: Rows, model: Model) -> dict[str, Array]:
    where = f"--data {data.source}: row "
    if len(model.inputs) == 1:
        only = model.inputs[0]
        if not model.has_rows:
            return {
                only.name: _rows_array([data.rows], only, False, lambda _, at: f"{where}value {at + 1}", whole=True)
            }
        rows = data.rows
        if not any(isinstance(row, list) for row in rows) and math.prod(only.inner) != 1:
            rows = [rows]  # one row, written without its outer brackets
        return {only.name: _rows_array(rows, only, False, lambda row, at: f"{where}{row + 1}, value {at + 1}")}
    if not model.has_rows:
        raise ConfigError(
            f"--data {data.source}: model {model.name!r} has {len(model.inputs)} inputs and no row dimension; "
            f'give whole tensors: {{"{model.inputs[0].name}": [...], ...}}'
        )
    for number, row in enumerate(data.rows, 1):
        if not isinstance(row, list) or len(row) != len(model.inputs):
            got = f"{len(row)} values" if isinstance(row, list) else "no list"
            raise ConfigError(
                f"{where}{number}: got {got}, expected one for each of {len(model.inputs)} inputs: {model}"
            )
    return {
        each.name: _rows_array(
            [row[place] for row in data.rows],
            each,
            False,
            lambda row, _, name=each.name: f"{where}{row + 1}, input {name!r}",  # type: ignore[misc]
        )
        for place, each in enumerate(model.inputs)
    }


def _rows_array(
    rows: list[Any], wanted: Input, is_text: bool, where: Callable[[int, int], str], whole: bool = False
) -> Array:
    """(rows, *inner), or the tensor itself when `whole`. A single value stands for a row of one."""
    flat: list[Any] = []
    first: tuple[int, ...] | None = None
    starts: list[int] = []
    for number, row in enumerate(rows):
        shape = _shape(row, lambda number=number: where(number, 0))  # type: ignore[misc]
        if shape == () and math.prod(wanted.inner) in (1, -1):
            shape = (1,) * len(wanted.inner)
        fits = len(shape) == len(wanted.inner) and all(
            size in (-1, got) for size, got in zip(wanted.inner, shape, strict=True)
        )
        if not fits or (first is not None and shape != first):
            expected = _described(first if fits and first is not None else wanted.inner)
            raise ConfigError(f"{where(number, 0)}: got {_described(shape)}, expected {expected} for input {wanted}")
        first = shape
        starts.append(len(flat))
        flat.extend(_leaves(row))
    inner = first if first is not None else tuple(max(size, 0) for size in wanted.inner)
    width = math.prod(inner)

    def place(index: int) -> str:
        return where(*divmod(index, width))

    array = _convert(flat, wanted.datatype, is_text, place)
    return array.reshape(inner) if whole else array.reshape(len(rows), *inner)


def _described(shape: tuple[int, ...]) -> str:
    if not shape:
        return "a single value"
    if len(shape) == 1 and shape[0] >= 0:
        return "1 value" if shape == (1,) else f"{shape[0]} values"
    return f"shape {list(shape)}"


def _shape(value: Any, where: Callable[[], str]) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    inner = {_shape(each, where) for each in value}
    if len(inner) > 1:
        raise ConfigError(f"{where()}: got lists of different lengths inside one row")
    return (len(value), *(inner.pop() if inner else ()))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _leaves(each)
    else:
        yield value


def _convert(values: list[Any], datatype: str, is_text: bool, where: Callable[[int], str]) -> Array:
    """A flat list into a flat array. ConfigError places the first value that does not fit."""
    converted = []
    for index, value in enumerate(values):
        try:
            converted.append(_scalar(value, datatype, is_text))
        except ValueError as error:
            shown = repr(value) if isinstance(value, str) else "null" if value is None else str(value).lower()
            raise ConfigError(f"{where(index)}: got {shown[:60]}, expected {error}") from None
    if datatype == "BYTES":
        return _objects(converted)
    array = np.array(converted, dtype=np.float64 if datatype in _FLOATS else DTYPES[datatype])
    if datatype in _FLOATS:
        with np.errstate(over="ignore"):
            narrow = array.astype(DTYPES[datatype])
        for index in np.flatnonzero(np.isinf(narrow) & ~np.isinf(array))[:1]:
            raise ConfigError(f"{where(int(index))}: got {values[index]}, too large for {datatype}")
        return narrow
    return array


def _scalar(value: Any, datatype: str, is_text: bool) -> Any:
    """ValueError says what was expected."""
    if datatype == "BYTES":
        if isinstance(value, str):
            return value.encode()
        raise ValueError("text (BYTES)")
    if datatype == "BOOL":
        if is_text and value.lower() in _TRUTH:
            return _TRUTH[value.lower()]
        if isinstance(value, bool):
            return value
        raise ValueError("true or false (BOOL)")
    if datatype in _FLOATS:
        if is_text or (isinstance(value, (int, float)) and not isinstance(value, bool)):
            try:
                return float(value)
            except (ValueError, OverflowError):
                hint = "; write nan where a number is missing" if value == "" else ""
                raise ValueError(f"a number ({datatype}){hint}") from None
        raise ValueError(f"a number ({datatype})")
    info = np.iinfo(DTYPES[datatype])
    expected = f"a whole number from {info.min} to {info.max} ({datatype})"
    try:
        number = int(value) if is_text else value
    except ValueError:
        raise ValueError(expected) from None
    if type(number) is not int or not info.min <= number <= info.max:
        raise ValueError(expected)
    return number


def _objects(values: list[Any]) -> Array:
    array: Array = np.empty(len(values), dtype=np.object_)
    array[:] = values
    return array


# --- the wire


def encode(array: Array, datatype: str) -> bytes:
    """Raw tensor bytes: little-endian, packed; BYTES elements with a 4-byte length before each."""
    if datatype == "BYTES":
        return b"".join(struct.pack("<I", len(value)) + value for value in array.ravel())
    if datatype == "BF16":
        bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
        rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16  # to nearest, ties to even
        return np.where(np.isnan(array), 0x7FC0, rounded).astype("<u2").tobytes()
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def decode(raw: bytes, datatype: str, shape: list[int]) -> Array:
    """The other way. ValueError when the bytes do not fill the shape, KeyError for an unknown datatype."""
    if datatype == "BYTES":
        values: list[bytes] = []
        at = 0
        while at < len(raw):
            size = int.from_bytes(raw[at : at + 4], "little")
            if at + 4 + size > len(raw):
                raise ValueError(f"element {len(values) + 1} needs {size} bytes, too few are left")
            values.append(raw[at + 4 : at + 4 + size])
            at += 4 + size
        return _objects(values).reshape(shape)
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    return np.frombuffer(raw, np.dtype(DTYPES[datatype]).newbyteorder("<")).reshape(shape)
