"""<version>/golden.npz: examples, and the answers that are right for them.

Arrays are named `input:<name>` and `output:<name>`, one example per row; text is NumPy unicode, so that no reader needs
pickle, and BF16 is kept as FP32. Outputs may be fewer than the model has: what is not there is not compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from gateway.backends.base import Array, Signature, TensorSpec, numpy_dtype
from gateway.errors import ConfigError

FILE_NAME = "golden.npz"
MAX_BYTES = 256 * 2**20
"""A worker reads it whole, beside the requests it serves: examples are dozens or hundreds, not the test set."""


@dataclass(frozen=True, slots=True)
class Golden:
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    n: int

    def arrays(self, signature: Signature, rows: slice) -> list[Array]:
        """Inputs in the signature's order, as a backend takes them. Only rows of a batched signature go together."""
        taken = [_as_model(self.inputs[spec.name][rows], spec) for spec in signature.inputs]
        return taken if signature.batched else [array[0] for array in taken]


def read(folder: Path, signature: Signature) -> Golden | None:
    """Of a version's folder; None when it has none. ConfigError names the file, the array, and what was expected."""
    path = folder / FILE_NAME
    if not path.exists():
        return None
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ConfigError(f"{path}: got {size / 2**20:.0f} MiB, expected {MAX_BYTES / 2**20:.0f} MiB at most")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays: dict[str, Array] = {name: file[name] for name in file.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; expected an npz without pickles") from None
    return _checked(path, arrays, signature)


def save(path: Path, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
    """Whole or not at all: a worker may be about to read it."""
    named = {f"input:{name}": _plain(array) for name, array in inputs.items()}
    named |= {f"output:{name}": _plain(array) for name, array in outputs.items()}
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **named)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from None


def _checked(path: Path, arrays: Mapping[str, Array], signature: Signature) -> Golden:
    inputs = {name.removeprefix("input:"): array for name, array in arrays.items() if name.startswith("input:")}
    outputs = {name.removeprefix("output:"): array for name, array in arrays.items() if name.startswith("output:")}
    for kind, found, specs, whole in (
        ("input", inputs, signature.inputs, True),
        ("output", outputs, signature.outputs, False),
    ):
        here = {spec.name: spec for spec in specs}
        missing = [name for name in here if name not in found] if whole else []
        if unknown := [name for name in found if name not in here]:
            raise ConfigError(f"{path}: got {kind}:{unknown[0]}, expected {kind}s {', '.join(here)} of the model")
        if missing or not found:
            lacks = f"{kind}:{missing[0] if missing else next(iter(here))}"
            raise ConfigError(f"{path}: has no array {lacks}; expected input:NAME for each input and output:NAME")
        for name, array in found.items():
            if not array.ndim:
                raise ConfigError(f"{path}: {kind}:{name}: got a single value, expected one row per example")
            if (fault := _misfit(array, here[name], batched=signature.batched)) and kind == "input":
                raise ConfigError(f"{path}: input:{name}: {fault}")
    rows = {len(array) for array in (*inputs.values(), *outputs.values())}
    if len(rows) > 1 or 0 in rows:
        raise ConfigError(f"{path}: got arrays of {', '.join(map(str, sorted(rows)))} rows, expected the same, above 0")
    return Golden(inputs, outputs, rows.pop())


def _misfit(array: Array, spec: TensorSpec, *, batched: bool) -> str:
    shape = spec.shape[1:] if batched else spec.shape
    fits = len(array.shape) - 1 == len(shape) and all(
        size < 0 or size == got for size, got in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        return f"got examples of shape {list(array.shape[1:])}, expected {list(shape)} (-1 is any)"
    is_text = array.dtype.kind in "US"
    if is_text != (spec.datatype == "BYTES"):
        return f"got {array.dtype}, expected {spec.datatype}"
    return ""


def _as_model(array: Array, spec: TensorSpec) -> Array:
    if spec.datatype == "BYTES":
        text = np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array
        return np.ascontiguousarray(text.astype(np.object_))
    if spec.datatype == "BF16" and array.dtype != np.uint16:
        return np.ascontiguousarray((array.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16))
    return np.ascontiguousarray(array.astype(numpy_dtype(spec.datatype), copy=False))


def _plain(array: Array) -> Array:
    if array.dtype != np.object_:
        return array
    texts = [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in array.ravel()]
    return np.array(texts, np.str_).reshape(array.shape)
