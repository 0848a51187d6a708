"""What a request says of the sequence that it belongs to, by Triton's parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway import pb

Key = int | str


@dataclass(frozen=True, slots=True)
class Step:
    key: Key
    start: bool
    end: bool


def of_message(message: bytes) -> Step | None:
    """Of a serialized ModelInferRequest."""
    return of_request(pb.inference.ModelInferRequest.FromString(message))


def of_request(request: Any) -> Step | None:
    """None: it belongs to no sequence. 0 and "" are no ids."""
    parameters = request.parameters
    if "sequence_id" not in parameters:
        return None
    given = parameters["sequence_id"]
    key: Key = given.string_param or given.int64_param or given.uint64_param
    if not key:
        return None
    start, end = (
        name in parameters and bool(parameters[name].bool_param) for name in ("sequence_start", "sequence_end")
    )
    return Step(key, start, end)
