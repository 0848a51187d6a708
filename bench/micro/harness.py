"""Times operations of nanoseconds: finds how many fit into one repetition, repeats, takes the median and the best.

An operation is either a Python callable, then the cost of an empty call in the same loop is taken off; or a native
`repeat(n)` that loops in C, which is the only honest way below about 100 ns.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat as times
from types import ModuleType

from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure

REPETITION_S, QUICK_REPETITION_S = 0.05, 0.01
REPETITIONS = 9
_MAX_LOOPS = 1 << 30


@dataclass(frozen=True, slots=True)
class Operation:
    """Exactly one of `call` (Python, once) and `repeat` (native, n times in C). `count`: operations in one of them."""

    name: str
    call: Callable[[], object] | None = None
    repeat: Callable[[int], object] | None = None
    count: int = 1

    def __post_init__(self) -> None:
        if (self.call is None) == (self.repeat is None):
            raise ValueError(f"operation {self.name!r}: give either call or repeat")


def run(context: Context, module: ModuleType) -> Iterator[Figure]:
    """One figure per operation of the module; raises NotMeasured when it has none."""
    operations: list[Operation] = module.operations()
    if not operations:
        raise NotMeasured("the module has no operations yet")
    name = module.__name__.rpartition(".")[2]
    repetition_s = QUICK_REPETITION_S if context.quick else REPETITION_S
    for operation in operations:
        context.say(operation.name)
        rounds = measure_ns(operation, repetition_s, REPETITIONS)
        yield Figure(name, operation.name, "ns", rounds, "lower", note=f"best {min(rounds):,.1f} ns")


def measure_ns(operation: Operation, repetition_s: float, repetitions: int) -> list[float]:
    """ns per operation of each repetition, in order; one repetition before them is warm-up."""
    loop = operation.repeat if operation.repeat is not None else _python_loop(operation.call)
    loops = _loops_for(loop, repetition_s)
    empty_ns = 0.0
    if operation.repeat is None:
        empty = _python_loop(_nothing)
        empty_ns = min(_timed_s(empty, loops) for _ in range(3)) / loops * 1e9
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        _timed_s(loop, loops)
        spent_s = [_timed_s(loop, loops) for _ in range(repetitions)]
    finally:
        if was_collecting:
            gc.enable()
    return [max(0.0, s / loops * 1e9 - empty_ns) / operation.count for s in spent_s]


def _loops_for(loop: Callable[[int], object], repetition_s: float) -> int:
    """A count of loops that takes about `repetition_s`."""
    loops = 1
    while (spent_s := _timed_s(loop, loops)) < repetition_s / 10 and loops < _MAX_LOOPS:
        loops *= 4
    return max(1, min(_MAX_LOOPS, int(loops * repetition_s / max(spent_s, 1e-9))))


def _timed_s(loop: Callable[[int], object], loops: int) -> float:
    start = time.perf_counter()
    loop(loops)
    return time.perf_counter() - start


def _python_loop(call: Callable[[], object] | None) -> Callable[[int], object]:
    def loop(n: int) -> None:
        for _ in times(None, n):
            call()  # type: ignore[misc]

    return loop


def _nothing() -> None:
    return None


def median_ns(operation: Operation) -> float:
    """For a look from a prompt: the median of a short measurement."""
    return statistics.median(measure_ns(operation, QUICK_REPETITION_S, REPETITIONS))
