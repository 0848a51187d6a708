"""What of a version's outputs is its prediction: decided once, when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gateway.config.feedback import Feedback
from gateway.errors import LoadError

MAX_CLASSES = 4096
"""The token's own bound: a longer row is an embedding or a picture."""
_WHOLE = ("INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16", "UINT8", "BOOL")
_REAL = ("FP32", "FP64", "FP16")


class Output(Protocol):
    """gateway.backends.base.TensorSpec."""

    @property
    def name(self) -> str: ...

    @property
    def datatype(self) -> str: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Prediction:
    """Outputs by name, as gateway.native.receipt.Receipts takes them. Neither: the token tells no prediction."""

    class_output: str | None = None
    score_output: str | None = None
    is_value: bool = False
    threshold: float = 0.5

    @property
    def kind(self) -> str:
        """For people."""
        if self.class_output is None and self.score_output is None:
            return "none"
        return "value" if self.is_value else "class"


def choose(wish: Feedback, outputs: Sequence[Output], batched: bool) -> Prediction:
    """LoadError when what is named is not there, or cannot be that."""
    if wish.prediction == "none":
        return Prediction()
    sizes = {output.name: _row_elements(output, batched) for output in outputs}
    named = _named(wish.output, "output", outputs)
    scores = _named(wish.scores, "scores", outputs)
    if scores is not None and scores.datatype not in _REAL:
        raise LoadError(f"feedback.scores: output {scores.name!r} is {scores.datatype}, expected one of scores")
    if named is None and wish.prediction in ("auto", "class"):
        named = next(
            (o for o in outputs if o.datatype not in _REAL and o.datatype != "BF16" and sizes[o.name] == 1), None
        )
    if named is None:
        wants_rows = wish.prediction == "class"
        named = next((o for o in outputs if o.datatype in _REAL and _fits(sizes[o.name], wants_rows)), None)
    if named is None:
        if wish.prediction == "auto":
            return Prediction()
        raise LoadError(
            f"feedback.prediction: no output of this version can be a {wish.prediction}; say none or output"
        )
    if named.datatype in (*_WHOLE, "BYTES") and wish.prediction in ("auto", "class"):
        if scores is None and wish.scores is None:
            scores = next((o for o in outputs if o.datatype in _REAL and _fits(sizes[o.name], False)), None)
        return Prediction(named.name, scores.name if scores else None)
    if named.datatype not in _REAL and not (wish.prediction == "value" and named.datatype in _WHOLE):
        raise LoadError(f"feedback.output: output {named.name!r} is {named.datatype}, which is no {wish.prediction}")
    is_single = sizes[named.name] == 1
    if wish.prediction in ("value", "probability") and not is_single:
        shape = list(named.shape)
        raise LoadError(f"feedback.output: output {named.name!r} is {shape}, expected one number a row")
    is_value = wish.prediction == "value" or (wish.prediction == "auto" and is_single)
    return Prediction(None, named.name, is_value, wish.threshold)


def _named(name: str | None, field: str, outputs: Sequence[Output]) -> Output | None:
    if name is None:
        return None
    for output in outputs:
        if output.name == name:
            return output
    there = ", ".join(output.name for output in outputs)
    raise LoadError(f"feedback.{field}: got {name!r}, expected one of the outputs: {there}")


def _row_elements(output: Output, batched: bool) -> int:
    """-1: varies."""
    n = 1
    for size in output.shape[1:] if batched else output.shape:
        if size < 0:
            return -1
        n *= size
    return n


def _fits(size: int, wants_rows: bool) -> bool:
    return 1 + wants_rows <= size <= MAX_CLASSES or size < 0
