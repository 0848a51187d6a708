"""Is a candidate fit to meet its first request? Pure: signatures, arrays and times in; what is wrong out.

Each question answers "" or one sentence that names the example, what was expected and what came. Nothing here is
statistics: the examples have right answers, and what the trial cannot show the guardrails will.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.backends.base import Array, Signature, TensorSpec

NEAR_ZERO = 1e-3
"""Of an output's largest value: smaller ones are held to this one's precision, since beside it their digits are noise.
"""
LEAST_SLOWER_US = 1000.0
"""A run that is slower by less than this is no reason to refuse: callers wait for the network longer. How slow it is
under their requests is the guardrail's affair.
"""


# --- the signature


def signature_fault(stable: Signature, candidate: Signature) -> str:
    """Why callers of stable could not call the candidate, or could not read its answers."""
    given = {spec.name: spec for spec in candidate.inputs}
    for spec in stable.inputs:
        if spec.name not in given:
            return f"input {spec.name!r}: stable takes it, the candidate does not ({_names(candidate.inputs)})"
        if fault := _misfit(spec, given[spec.name], narrows=True):
            return f"input {spec.name!r}: {fault}"
    if more := [name for name in given if name not in {spec.name for spec in stable.inputs}]:
        return f"input {more[0]!r}: the candidate needs it, and callers of stable do not send it"
    answers = {spec.name: spec for spec in candidate.outputs}
    for spec in stable.outputs:
        if spec.name not in answers:
            return f"output {spec.name!r}: stable gives it, the candidate does not ({_names(candidate.outputs)})"
        if fault := _misfit(spec, answers[spec.name], narrows=False):
            return f"output {spec.name!r}: {fault}"
    return ""


def _misfit(stable: TensorSpec, candidate: TensorSpec, *, narrows: bool) -> str:
    """`narrows`: a dimension that is free in stable must be free in the candidate."""
    if stable.datatype != candidate.datatype:
        return f"expected {stable.datatype} as of stable, got {candidate.datatype}"
    fits = len(stable.shape) == len(candidate.shape) and all(
        a == b or b < 0 or (a < 0 and not narrows) for a, b in zip(stable.shape, candidate.shape, strict=True)
    )
    return "" if fits else f"expected shape {list(stable.shape)} as of stable, got {list(candidate.shape)}"


def _names(specs: Sequence[TensorSpec]) -> str:
    return f"it has {', '.join(spec.name for spec in specs)}"


# --- golden examples


@dataclass(frozen=True, slots=True)
class Compared:
    """`furthest`: the largest relative difference among those that are within the tolerance."""

    fault: str
    furthest: float = 0.0


def compare(name: str, expected: Array, got: Array, tolerance: float, first: int, n: int) -> Compared:
    """One output of some golden examples, rows first. `first` is the first row's place among all `n` of the file."""
    if expected.shape != got.shape:
        example = _example(first, n)
        return Compared(f"{example}: output {name!r}: expected shape {list(expected.shape[1:])}, got {_row_shape(got)}")
    if not np.issubdtype(expected.dtype, np.floating) or not np.issubdtype(got.dtype, np.number):
        differs = np.asarray(_texts(expected) != _texts(got)) if expected.dtype.kind in "USO" else expected != got
        if not differs.any():
            return Compared("")
        at = np.unravel_index(int(np.argmax(differs)), differs.shape)
        return Compared(f"{_place(name, at, first, n)}: expected {_shown(expected[at])}, got {_shown(got[at])}")
    wanted, found = expected.astype(np.float64), got.astype(np.float64)
    finite = np.isfinite(wanted)
    if (
        odd := ~finite & ~((wanted == found) | (np.isnan(wanted) & np.isnan(found))) | (finite & ~np.isfinite(found))
    ).any():
        at = np.unravel_index(int(np.argmax(odd)), odd.shape)
        return Compared(f"{_place(name, at, first, n)}: expected {_shown(expected[at])}, got {_shown(got[at])}")
    if not finite.any():
        return Compared("")
    scale = np.maximum(np.abs(wanted), NEAR_ZERO * np.abs(wanted[finite]).max())
    relative = np.where(finite, np.abs(found - wanted) / np.maximum(scale, np.finfo(np.float64).tiny), 0.0)
    at = np.unravel_index(int(np.argmax(relative)), relative.shape)
    worst = float(relative[at])
    if worst <= tolerance:
        return Compared("", worst)
    off = f"{100.0 * worst:.3g} % off, tolerance {100.0 * tolerance:g} %"
    return Compared(f"{_place(name, at, first, n)}: expected {_shown(expected[at])}, got {_shown(got[at])}: {off}")


def failed(first: int, n: int, reason: str) -> str:
    """An example that the model has no answer for."""
    return f"{_example(first, n)}: expected an answer, got: {reason}"


def _place(name: str, at: Sequence[Any], first: int, n: int) -> str:
    index = "".join(f"[{i}]" for i in at[1:])
    return f"{_example(first + int(at[0]), n)}: output {name!r}{index}"


def _example(row: int, n: int) -> str:
    return f"golden example {row + 1} of {n}"


def _row_shape(array: Array) -> str:
    return str(list(array.shape[1:])) if array.ndim else "a single value"


def _texts(array: Array) -> Array:
    return np.array(
        [each.decode(errors="replace") if isinstance(each, bytes) else str(each) for each in array.ravel()], np.object_
    ).reshape(array.shape)


def _shown(value: object) -> str:
    if isinstance(value, (bytes, str, np.str_, np.bytes_)):
        text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
        return repr(text if len(text) <= 60 else f"{text[:57]}...")
    return f"{value:.6g}" if isinstance(value, (float, np.floating)) else str(value)


# --- beside stable


def broken_fault(name: str, stable: Array | None, candidate: Array, where: str) -> str:
    """NaN or infinity in an answer to finite inputs, where stable (if it was asked) has none."""
    if not np.issubdtype(candidate.dtype, np.floating):
        return ""
    odd = ~np.isfinite(candidate)
    if not odd.any() or (stable is not None and not np.isfinite(stable).all()):
        return ""
    at = np.unravel_index(int(np.argmax(odd)), odd.shape)
    index = "".join(f"[{i}]" for i in at)
    beside = "" if stable is None else ", stable gives finite ones"
    return f"{where}: output {name!r}{index}: expected a finite number, got {candidate[at]}{beside}"


@dataclass(frozen=True, slots=True)
class Timed:
    """Medians of runs that alternate."""

    rows: int
    stable_us: float
    candidate_us: float

    @property
    def times(self) -> float:
        return self.candidate_us / max(self.stable_us, 1e-9)


def latency_fault(timed: Sequence[Timed], limit: float) -> str:
    for each in timed:
        if each.times > limit and each.candidate_us - each.stable_us > LEAST_SLOWER_US:
            return (
                f"a run of {_rows(each.rows)} took {_time(each.candidate_us)}, {each.times:.1f} times as long as stable"
                f" ({_time(each.stable_us)}); expected {limit:g} times at most (acceptance.latency)"
            )
    return ""


def latency_seen(timed: Sequence[Timed]) -> str:
    return ", ".join(
        f"{_time(each.candidate_us)} for {_rows(each.rows)} (stable {_time(each.stable_us)})" for each in timed
    )


def memory_fault(added_bytes: int, limit_bytes: int | None) -> str:
    if limit_bytes is None or added_bytes <= limit_bytes:
        return ""
    return (
        f"it takes {added_bytes / 2**20:.0f} MiB of memory in a worker,"
        f" expected {limit_bytes / 2**20:.0f} MiB at most (acceptance.memory)"
    )


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"


def _time(us: float) -> str:
    if us < 1000.0:
        return f"{us:.0f} us"
    return f"{us / 1e3:.3g} ms" if us < 1e6 else f"{us / 1e6:.3g} s"
