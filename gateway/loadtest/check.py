"""Were the answers right? Each different one is compared with what the same version answers to a single request.

Floats may differ in their last bits, because a row's neighbours in a batch change the order of sums; all else is equal
or wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""Two results of one model in FP32, in batches of different sizes; a wrong row is off by much more."""

_FLOATS = ("FP16", "FP32", "FP64", "BF16")


@dataclass(slots=True)
class Verdict:
    right: int = 0
    wrong: int = 0
    unchecked: int = 0
    by_version: dict[str, int] = field(default_factory=dict)
    example: str = ""
    """The first wrong answer, for a person."""


def answers(
    seen: Iterable[tuple[int, bytes, int]], unkept: int, parse: Callable[[bytes], Any], ask: Callable[[int, str], Any]
) -> Verdict:
    """`seen`: (request, framed answer, how often). `parse` makes a ModelInferResponse of bytes (ValueError); `ask`
    sends one request to one version and returns its response, or None when that version cannot be asked.
    """
    verdict = Verdict(unchecked=unkept)
    references: dict[tuple[int, str], Any] = {}
    for which, framed, count in seen:
        try:
            response = parse(_message(framed))
        except ValueError as error:
            verdict.wrong += count
            verdict.example = verdict.example or f"request {which}: {error}"
            continue
        version = response.model_version
        verdict.by_version[version] = verdict.by_version.get(version, 0) + count
        key = which, version
        if key not in references:
            references[key] = ask(which, version)
        if references[key] is None:
            verdict.unchecked += count
        elif fault := difference(response, references[key]):
            verdict.wrong += count
            verdict.example = verdict.example or f"request {which}, version {version}: {fault}"
        else:
            verdict.right += count
    return verdict


def difference(response: Any, reference: Any) -> str:
    """Why two ModelInferResponses are not the same answer; "" when they are."""
    from gateway.cli.tensors import decode

    came = [(output.name, output.datatype, list(output.shape)) for output in response.outputs]
    wanted = [(output.name, output.datatype, list(output.shape)) for output in reference.outputs]
    if came != wanted:
        return f"got outputs {came}, expected {wanted}"
    for (name, datatype, shape), raw, right in zip(
        came, response.raw_output_contents, reference.raw_output_contents, strict=False
    ):
        if raw == right:
            continue
        if datatype not in _FLOATS or len(raw) != len(right):
            return f"output {name!r} is another one"
        got, expected = (np.asarray(decode(data, datatype, shape), np.float64) for data in (raw, right))
        if not np.allclose(got, expected, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True):
            worst = int(np.nanargmax(np.abs(got - expected)))
            return f"output {name!r}: got {got.flat[worst]:g}, expected {expected.flat[worst]:g}"
    if len(response.raw_output_contents) != len(reference.raw_output_contents):
        return "some outputs came without their contents"
    return ""


def _message(framed: bytes) -> bytes:
    if len(framed) < 5 or framed[0] or int.from_bytes(framed[1:5], "big") != len(framed) - 5:
        raise ValueError(f"{len(framed)} bytes that are no single uncompressed gRPC message")
    return framed[5:]
