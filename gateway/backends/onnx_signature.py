"""What an ONNX model takes and gives, and whether its requests may share a batch.

Declared shapes are a claim: exporters leave dimensions open that must be 1, and forget shapes. So the claim is checked
by runs with one row and with three: every output must have as many rows, and a row must answer the same alone as in
company.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.backends import onnx_errors, zipmap
from gateway.backends.base import MAX_RANK, Array, Signature, TensorSpec
from gateway.backends.samples import Call, Samples, find_samples
from gateway.errors import LoadError

_DATATYPES = {
    "bool": "BOOL",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "float16": "FP16",
    "float": "FP32",
    "double": "FP64",
    "bfloat16": "BF16",
    "string": "BYTES",
}
_TOLERANCE = 0.01  # of the largest value: other batch sizes take other kernels, mixed rows are off by far more


@dataclass(frozen=True, slots=True)
class Declared:
    """The session's own words: specs, and the names of free dimensions (None where a dimension is fixed or has no
    name).
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    input_symbols: tuple[tuple[str | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Inferred:
    """The signature, inputs that the model is known to accept (None: it refused all), and why it is not batched (or
    "").
    """

    signature: Signature
    samples: Samples | None
    not_batched: str
    notes: tuple[str, ...]


def declared(file: Path, session: Any) -> Declared:
    """LoadError names the first tensor that the protocol cannot carry."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if not inputs:
        raise LoadError(f"{file} has no inputs; nothing can be asked of it")
    try:
        specs = [_spec(file, "input", node) for node in inputs], [_spec(file, "output", node) for node in outputs]
    except UnicodeDecodeError:
        raise LoadError(f"{file} has a name that is not text in UTF-8; copy or export it again") from None
    text = next((spec for spec in specs[0] if spec.datatype == "BYTES"), None)
    bits = next((spec for spec in (*specs[0], *specs[1]) if spec.datatype == "BF16"), None)
    if text and bits:  # BF16 goes by address, and text has none
        raise LoadError(
            f'{file}: input "{text.name}" is text beside "{bits.name}" in BF16, '
            f'which ONNX Runtime cannot be handed together; cast "{bits.name}" to FP32 in the model'
        )
    if any(not spec.shape for spec in specs[0]):
        _refuse_missing_shapes(file, [spec.name for spec in specs[0] if not spec.shape])
    symbols = tuple(tuple(size if isinstance(size, str) else None for size in node.shape) for node in inputs)
    return Declared(tuple(specs[0]), tuple(specs[1]), symbols)


def infer(claim: Declared, call: Call, wants_batches: bool) -> Inferred:
    """Checks the claim by running the model. `wants_batches`: False when the operator has switched batching off."""
    not_batched = _claims_no_batches(claim) if wants_batches else "batching.max_batch_size is 0"
    notes: list[str] = []
    if not not_batched:
        samples, answers, refusal = find_samples(call, claim.inputs, 1)
        if samples is None:
            notes.append(f"made-up inputs are refused, so its batch dimension is taken on trust: {_line(refusal)}")
            if unknown := next((spec for spec in claim.outputs if not spec.shape), None):
                not_batched = f'output "{unknown.name}" declares no shape, and made-up inputs are refused'
            else:
                return Inferred(Signature(claim.inputs, claim.outputs, True), None, "", tuple(notes))
        else:
            not_batched, answers = _rows_disagree(claim, call, samples, answers)
            if not not_batched:
                outputs = _observed(claim.outputs, answers, batched=True)
                return Inferred(Signature(claim.inputs, outputs, True), samples, "", tuple(notes))
    samples, answers, refusal = find_samples(call, claim.inputs, None)
    if samples is None and not notes:
        notes.append(f"made-up inputs are refused: {_line(refusal)}")
    outputs = _observed(claim.outputs, answers, batched=False) if samples else claim.outputs
    return Inferred(Signature(claim.inputs, outputs, False), samples, not_batched, tuple(notes))


def _spec(file: Path, kind: str, node: Any) -> TensorSpec:
    name = f'{kind} "{node.name}"'
    if "map(" in node.type:
        raise LoadError(
            f"{file}: {name} is {node.type} (skl2onnx's ZipMap?), expected a tensor; {zipmap.CURE}"
            + (", or pip install onnx so that ZipMap can be taken out here" if node.type.startswith("seq(") else "")
        )
    if not node.type.startswith("tensor("):
        raise LoadError(f"{file}: {name} is {node.type}, expected a tensor; export each part as a tensor of its own")
    element = node.type.removeprefix("tensor(").removesuffix(")")
    if element not in _DATATYPES:
        known = ", ".join(_DATATYPES)
        raise LoadError(f"{file}: {name} has elements of type {element}, expected one of {known}; cast it in the model")
    if len(node.shape) > MAX_RANK:
        raise LoadError(f"{file}: {name} has {len(node.shape)} dimensions, expected {MAX_RANK} at most; reshape it")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[element], shape)


def _refuse_missing_shapes(file: Path, names: list[str]) -> None:
    """ONNX Runtime shows a tensor without a shape as a scalar; the file knows better."""
    try:
        import onnx

        graph = onnx.load(file, load_external_data=False).graph
    except Exception:  # no such package, or a format of ONNX Runtime's own: scalars, then
        return
    for node in graph.input:
        if node.name in names and not node.type.tensor_type.HasField("shape"):
            raise LoadError(f'{file}: input "{node.name}" declares no shape; export it with its dimensions')


def _claims_no_batches(claim: Declared) -> str:
    """Why the declared shapes rule batches out, or "". An output without dimensions may lack a shape: runs will
    tell.
    """
    for kind, specs in (("input", claim.inputs), ("output", claim.outputs)):
        for spec in specs:
            if kind == "input" and not spec.shape:
                return f'input "{spec.name}" is a scalar'
            if spec.shape and spec.shape[0] >= 0:
                return f'{kind} "{spec.name}" has {spec.shape[0]} as its first dimension, not a free one'
    firsts = {symbols[0] for symbols in claim.input_symbols if symbols[0]}
    if len(firsts) > 1:
        return f"the first dimensions of its inputs differ: {', '.join(sorted(firsts))}"
    for spec, symbols in zip(claim.inputs, claim.input_symbols, strict=True):
        if firsts.intersection(symbols[1:]):
            return f'input "{spec.name}" has its first dimension {symbols[0]} a second time'
    return ""


def _rows_disagree(claim: Declared, call: Call, samples: Samples, one: list[Array]) -> tuple[str, list[Array]]:
    """Why runs rule batches out, or ""; and the answers to three rows."""
    inputs = samples.make(3)
    try:
        three = call(inputs)
        for spec, alone, together in zip(claim.outputs, one, three, strict=True):
            for rows, answer in ((1, alone), (3, together)):
                if answer.ndim == 0 or answer.shape[0] != rows:
                    return f'output "{spec.name}" has shape {list(answer.shape)} for {rows} row(s)', []
        # The middle one: sums over rows run forwards and backwards.
        middle = call([np.ascontiguousarray(array[1:2]) for array in inputs])
        pairs = list(zip(claim.outputs, middle, [answer[1:2] for answer in three], strict=True))
        changed = [spec.name for spec, alone, together in pairs if not _close(spec.datatype, alone, together)]
        if changed and _repeats(claim, three, call(inputs)):
            return f'output "{changed[0]}" of a row changes with the rows beside it', []
    except Exception as error:
        return f"a run with other rows failed: {_line(str(error))}", []
    return "", three


def _repeats(claim: Declared, first: list[Array], second: list[Array]) -> bool:
    """Whether equal inputs give equal answers; a model that draws random numbers does not, and may be batched all the
    same.
    """
    specs = zip(claim.outputs, first, second, strict=True)
    return all(_close(spec.datatype, before, after) for spec, before, after in specs)


def _close(datatype: str, left: Array, right: Array) -> bool:
    """Equal, but for rounding. Free inner dimensions may differ in size (padding to the longest row): that is not a
    difference.
    """
    if left.shape != right.shape:
        return True
    if datatype == "BYTES":
        return bool((left == right).all())
    if datatype == "BF16":
        left, right = ((array.astype(np.uint32) << 16).view(np.float32) for array in (left, right))
    left, right = left.astype(np.float64), right.astype(np.float64)
    scale = np.max(np.abs(right), initial=0.0, where=np.isfinite(right))
    return bool(np.allclose(left, right, rtol=_TOLERANCE, atol=_TOLERANCE * float(scale), equal_nan=True))


def _observed(specs: tuple[TensorSpec, ...], answers: list[Array], batched: bool) -> tuple[TensorSpec, ...]:
    """Declared output shapes, corrected where a run contradicts them: free what differs, and give a rank to what had
    none.
    """
    corrected = []
    for spec, answer in zip(specs, answers, strict=True):
        shape = spec.shape if len(spec.shape) == answer.ndim else (-1,) * answer.ndim
        shape = tuple(size if size in (-1, real) else -1 for size, real in zip(shape, answer.shape, strict=True))
        corrected.append(replace(spec, shape=(-1, *shape[1:]) if batched else shape))
    return tuple(corrected)


def _line(text: str) -> str:
    return onnx_errors.one_line(text) or "no reason given"
