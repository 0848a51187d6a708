"""ns to cancel the oldest timer and start a new one, as requests with deadlines pass, by how many are pending."""

from __future__ import annotations

from bench.micro.compiled import loops
from bench.micro.harness import Operation


def operations() -> list[Operation]:
    return [Operation(f"{n:,} pending", repeat=loops().AddCancel(n).repeat) for n in (1, 1_000, 100_000)]
