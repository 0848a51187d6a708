"""Backend `onnx`: a version runs in an ONNX Runtime session in this process.

One session serves all threads: its run is safe for concurrent calls and works without the GIL. What is called is the
extension's own run, where there is one: the public method in front of it checks in Python what was checked before the
batch was formed, which costs a microsecond, a twenty-fifth of a small request that comes alone.
"""

from __future__ import annotations

import ctypes
import logging
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument as OrtInvalidArgument

from gateway.backends import onnx_errors, onnx_signature
from gateway.backends.base import Array, Backend, Signature, TensorSpec
from gateway.backends.onnx_bound import Bound, bind_sizes
from gateway.backends.onnx_session import open_session, runs_on_one_thread
from gateway.backends.samples import Call, Samples
from gateway.backends.warmup import Measured, Run, cost_us, warm_auto, warm_fixed
from gateway.config.model import ModelConfig
from gateway.errors import BackendFailure, InvalidArgument, LoadError

FILE_NAME = "model.onnx"

UNMEASURED_ROWS = 32
"""`max_batch_size: auto` of a model that refuses made-up inputs: most of the gain, and little harm if a row is slow."""

_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_log = logging.getLogger(__name__)


def load(path: Path, config: ModelConfig, threads: int = 0, *, model: str = "", version: str = "") -> OnnxBackend:
    """Open the model at `path`, a file or a version's folder. The backend still has to warm up.

    `threads` bounds `intra_op_threads` (0: no bound). `model` and `version` are for error texts; by default the names
    of the folders. LoadError: one line that names the file or setting and the cure.
    """
    file = path / FILE_NAME if path.is_dir() else path
    model, version = model or file.absolute().parent.parent.name, version or file.absolute().parent.name
    session = open_session(file, config.onnx, threads)
    claim = onnx_signature.declared(file, session)
    call = _build_call(session, claim.inputs, claim.outputs)
    wish = config.batching.max_batch_size
    inferred = onnx_signature.infer(claim, call, wants_batches=wish != 0)
    if inferred.not_batched and wish != "auto" and wish > 1:
        raise LoadError(
            f"{file} cannot be batched: {inferred.not_batched}; "
            f"batching.max_batch_size is {wish}, expected auto, or a model whose tensors all begin with a free one"
        )
    return OnnxBackend(session, call, inferred, wish, f'model "{model}" version {version}')


class OnnxBackend(Backend):
    """See Backend. `run` adds a quarter of a microsecond to ONNX Runtime's own call."""

    platform = "onnxruntime_onnx"

    def __init__(
        self, session: Any, call: Call, inferred: onnx_signature.Inferred, wish: int | str, title: str
    ) -> None:
        self.is_one_thread = runs_on_one_thread(session)
        self.signature: Signature = inferred.signature
        self.costs_us: list[tuple[int, float]] = []
        self.notes = [*inferred.notes]
        if inferred.not_batched and wish != 0:
            self.notes.append(f"not batched: {inferred.not_batched}")
        self.max_batch_size = (wish if isinstance(wish, int) else 1) if self.signature.batched else 0
        self._session, self._call = session, call
        self._bound: dict[int, Bound] = {}  # by id of its inputs, which it keeps
        self._samples: Samples | None = inferred.samples
        self._wish = wish
        self._title = title

    def warm_up(self) -> None:
        measured = self._measure()
        self.costs_us = measured.costs_us
        self.max_batch_size = measured.max_rows if self.signature.batched else 0
        self.notes += measured.notes
        for note in self.notes:
            _log.info("%s: %s", self._title, note)
        if self._samples is not None:
            self._bind(self._samples)

    def run(self, inputs: list[Array]) -> list[Array]:
        bound = self._bound.get(id(inputs))
        if bound is not None:
            try:
                bound.run()
                return bound.outputs
            except Exception:  # as any other batch: who is to blame is found out there
                _log.debug("%s: a bound run failed", self._title, exc_info=True)
        try:
            return self._call(inputs)
        except Exception as error:
            raise self._translated(error) from error

    def buffers(self) -> dict[int, list[Array]]:
        return {bound.rows: bound.inputs for bound in self._bound.values()}

    def close(self) -> None:
        self._call, self._session = _closed, None
        self._bound.clear()

    def _bind(self, samples: Samples) -> None:
        try:
            found = bind_sizes(self._session, self.signature, samples, self._call, self.max_batch_size)
        except Exception as error:  # it answers all the same, a little slower
            _log.warning("%s: its arrays could not be bound: %s", self._title, error)
            return
        self._bound = {id(bound.inputs): bound for bound in found}

    def _measure(self) -> Measured:
        samples = self._samples
        # The thread's own time where that is all there is: other versions and workers warm up beside this one.
        clock = time.thread_time if self.is_one_thread else time.perf_counter
        if samples is None:
            unmeasured = Measured(max_rows=self._wish if isinstance(self._wish, int) else UNMEASURED_ROWS)
            unmeasured.notes.append("not warmed up: its first requests may be slow")
            return unmeasured
        if not self.signature.batched:
            return Measured([(1, cost_us(self._prepare(samples, None), clock))])
        if isinstance(self._wish, int):
            return warm_fixed(lambda rows: self._prepare(samples, rows), self._wish, clock)
        return warm_auto(lambda rows: self._prepare(samples, rows), samples.n_bytes(1), clock)

    def _prepare(self, samples: Samples, rows: int | None) -> Run:
        inputs = samples.make(rows)
        return lambda: self._call(inputs)

    def _translated(self, error: Exception) -> Exception:
        if isinstance(error, (OrtInvalidArgument, UnicodeEncodeError)):
            return InvalidArgument(f"{self._title} refused the input: {onnx_errors.run_reason(error)}")
        return BackendFailure(f"{self._title} failed on this request")


def _build_call(session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Call:
    """Arrays in, arrays out, with the names looked up beforehand."""
    run = getattr(session, "_sess", session).run
    input_names, output_names = [spec.name for spec in inputs], [spec.name for spec in outputs]
    if any(spec.datatype == "BF16" for spec in (*inputs, *outputs)):
        return _build_bound_call(session, inputs, outputs)
    if len(input_names) == 1:
        (only,) = input_names
        return lambda arrays: cast(list[Array], run(output_names, {only: arrays[0]}, None))
    return lambda arrays: cast(list[Array], run(output_names, dict(zip(input_names, arrays, strict=True)), None))


def _build_bound_call(session: Any, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]) -> Call:
    """For BF16, which NumPy lacks and `run` therefore refuses: the bits go in and out by address. A binding per call,
    since threads share none.
    """

    def call(arrays: list[Array]) -> list[Array]:
        binding = session.io_binding()
        for spec, array in zip(inputs, arrays, strict=True):
            if spec.datatype == "BF16":
                binding.bind_input(spec.name, "cpu", 0, _BFLOAT16, array.shape, array.ctypes.data)
            else:
                binding.bind_cpu_input(spec.name, array)
        for spec in outputs:
            binding.bind_output(spec.name, "cpu")
        session.run_with_iobinding(binding)
        values = binding.get_outputs()
        return [
            _copied_bits(value) if spec.datatype == "BF16" else value.numpy()
            for spec, value in zip(outputs, values, strict=True)
        ]

    return call


def _copied_bits(value: Any) -> Array:
    """The array owns its memory: ONNX Runtime's goes with the binding."""
    bits = np.empty(value.shape(), np.uint16)
    if bits.size:
        ctypes.memmove(bits.ctypes.data, value.data_ptr(), bits.nbytes)
    return bits


def _closed(_: list[Array]) -> list[Array]:
    raise RuntimeError("the version is unloaded")
