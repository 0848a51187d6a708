"""What a backend is: something that holds one loaded version and answers batches.

A lane knows only this. Signatures use the words of the Open Inference Protocol, arrays those of NumPy, and the table
between them is here.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MAX_RANK = 8
"""Dimensions of a tensor: the native codec keeps shapes in a fixed array. No model that we know has more than six."""

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BF16": np.dtype(np.uint16),  # the bits: NumPy has no such type
    "BYTES": np.dtype(np.object_),
}

DATATYPES = tuple(_DTYPES)


def numpy_dtype(datatype: str) -> np.dtype[Any]:
    """NumPy's type for an OIP datatype; BF16 is its bits in uint16, BYTES are objects. KeyError for an unknown name."""
    return _DTYPES[datatype]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output. `datatype` is OIP's name; -1 in `shape` is any size; the batch dimension is included."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Signature:
    """What a version takes and gives. `batched`: dimension 0 of every tensor is rows, and rows do not see each
    other.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool


class Backend(abc.ABC):
    """One loaded version. `run` is called from several threads at once; everything else from one, before or after."""

    signature: Signature

    platform: str
    """As ModelMetadata shows it: "onnxruntime_onnx"."""

    kind: str = "onnxruntime"
    """As Triton's ModelConfig names a backend."""

    max_batch_size: int
    """Rows of the largest batch; 0 when the signature is not batched. Final after `warm_up`."""

    costs_us: list[tuple[int, float]]
    """(rows, microseconds) of the quickest of several runs, by rows, filled by `warm_up`. Empty when no run succeeded.
    """

    is_one_thread: bool = False
    """A run is the work of the calling thread alone: its processor time is its cost, whatever else the machine does."""

    runs_elsewhere: bool = False
    """Batches go to other servers by a connection that the loop holds: no thread waits for them."""

    in_flight: int = 0
    """Batches at once, where the backend knows better than the number of cores; 0: it does not."""

    notes: list[str]
    """Sentences for the log: why a version is not batched, which sizes were not warmed."""

    @abc.abstractmethod
    def warm_up(self) -> None:
        """Run every batch size that the lane may use. A model that refuses made-up inputs is noted, not failed."""

    @abc.abstractmethod
    def run(self, inputs: list[Array]) -> list[Array]:
        """Answer one batch. Arrays in signature order, C-contiguous, of numpy_dtype(datatype), rows included, maybe
        read-only (a large tensor that runs alone lies in its message); BYTES in are `str`, BYTES out are `str` or
        `bytes`. InvalidArgument when the values are at fault, else BackendFailure with the detail as cause.
        """

    def buffers(self) -> dict[int, list[Array]]:
        """Arrays by rows (1 without a batch dimension), in signature order, that `run` is quicker with: gathered into,
        and given to it as this very list. The answer then lies in arrays that the next such run writes again, so that
        only one thread may use them. Empty: none.
        """
        return {}

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of the model. No run is in flight, and none follows."""
