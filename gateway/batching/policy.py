"""What a lane is told, from what the operator set and what the warm-up measured. Pure; the batching itself is native.

Eager is the default and has no knob: an idle executor takes what is there, and what arrives during a run is the next
batch, so that the batch size follows the load by itself. It waits a moment only for callers who were just answered,
where it has seen that they ask again at once, and that they are worth it (native linger).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gateway.config.model import Batching

INLINE_BELOW_US = 100
"""A run predicted to be shorter stays on the loop thread: a hop to an executor and back costs about as much."""

MAX_BATCH_BYTES = 32 * 2**20
"""Inputs of one batch: bounds the gather buffer; past it larger batches gain nothing."""


COPY_BYTES_PER_US = 8_000
"""What a core copies into a batch, about."""

HOP_US = 30
"""Of the loop's and an executor's time, for each batch: the requests of one share it."""


def alone_bytes(costs_us: Sequence[tuple[int, float]]) -> int:
    """Beyond it a request runs alone, where its message lies: to copy it into a batch would take longer than its
    company saves. `costs_us` as Backend has it; 0: not known, all that fits is joined.
    """
    if len(costs_us) < 2 or costs_us[0][0] != 1:
        return 0
    alone_us = costs_us[0][1]
    saved_us = max(0.0, *(alone_us - us / rows for rows, us in costs_us[1:])) + HOP_US
    return int(saved_us * COPY_BYTES_PER_US)


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """Keyword arguments of native.lane.Lane. Times in microseconds, 0 = none."""

    max_batch_size: int
    max_batch_bytes: int
    max_delay_us: int
    instances: int
    max_queue_rows: int
    max_queue_bytes: int
    default_timeout_us: int
    max_timeout_us: int
    priority_levels: int
    default_priority: int
    inline_below_us: int
    counts_cpu: bool
    lingers: bool
    alone_bytes: int

    def as_arguments(self) -> dict[str, Any]:
        return asdict(self)


REMOTE_BATCH_BYTES = 8 * 2**20
"""The same for a batch that goes to another server: the loop copies it, and nobody is answered meanwhile."""


def instances_for(wish: int | str, cores: int, workers: int) -> int:
    """Batches of one version that run at once: as wished, else this worker's share of the cores."""
    return wish if isinstance(wish, int) else max(1, cores // workers)


def lane_policy(
    batching: Batching,
    *,
    max_batch_size: int,
    cores: int,
    workers: int,
    is_one_thread: bool,
    in_flight: int = 0,
    costs_us: Sequence[tuple[int, float]] = (),
) -> LanePolicy:
    """`max_batch_size` in rows as the backend settled it (0: not batched); `is_one_thread`: a run is the work of the
    calling thread alone, so that its processor time is its cost, whatever else the machine does; `in_flight`: so many
    batches at once run on other servers, and none in this process (0: here it is); `costs_us`: what batches took.
    """
    return LanePolicy(
        max_batch_size=max_batch_size,
        max_batch_bytes=REMOTE_BATCH_BYTES if in_flight else MAX_BATCH_BYTES,
        max_delay_us=batching.max_delay_us,
        instances=in_flight or instances_for(batching.instances, cores, workers),
        max_queue_rows=batching.queue_rows,
        max_queue_bytes=batching.queue_bytes,
        default_timeout_us=batching.default_timeout_us or 0,
        max_timeout_us=batching.max_timeout_us or 0,
        priority_levels=batching.priority_levels,
        default_priority=batching.default_priority,
        inline_below_us=0 if in_flight else INLINE_BELOW_US,
        counts_cpu=is_one_thread,
        lingers=batching.linger,
        alone_bytes=0 if in_flight else alone_bytes(costs_us),
    )
