"""What one worker has counted since it started: integers that add up over workers, and what holds at this moment.

The native side counts; nothing here runs per request. Times in microseconds, sizes in bytes or rows. A snapshot
replaces the worker's earlier ones; a lost one costs nothing but freshness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import zip_longest
from typing import Any, TypeVar, cast

import orjson
from pydantic import TypeAdapter, ValidationError

# fmt: off
DURATION_BOUNDS_US = (
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000,
    1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000, 50_000_000, 100_000_000,
)
# fmt: on
"""Upper bounds, inclusive, of all duration histograms, as ext/gateway/native/histogram.pxd has them."""

ROWS_BOUNDS = tuple(2**power for power in range(13))
"""The same for rows per batch: 1 to 4096."""

T = TypeVar("T")


@dataclass(slots=True)
class Histogram:
    """`counts`: one a bucket, not cumulative, the last above every bound; `total`: the sum of what was observed."""

    counts: list[int] = field(default_factory=list)
    total: int = 0


@dataclass(slots=True)
class ArmCounters:
    """What fell on one arm of a version; over all arms, what the version has in LaneCounters."""

    requests: dict[str, int] = field(default_factory=dict)
    cancelled: int = 0
    request_time: dict[str, Histogram] = field(default_factory=dict)


@dataclass(slots=True)
class ShadowCounters:
    """Of a version as a shadow."""

    drawn: int = 0
    """Requests that it was to get."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Of them those that no pair came of, by reason."""
    compared: int = 0
    disagreed: int = 0
    failed: int = 0
    """While the primary answered."""


@dataclass(slots=True)
class EndpointCounters:
    """Of one server that runs a version elsewhere: attempts, which are more than requests and fewer."""

    attempts: dict[str, int] = field(default_factory=dict)
    """By how they ended."""
    repeated: int = 0
    """Of them after, or beside, one at another server."""
    ejections: int = 0
    ways: dict[str, int] = field(default_factory=dict)
    """Of them, by how their tensors got there."""


@dataclass(slots=True)
class LaneCounters:
    """One version in one worker. Durations are sums over requests."""

    requests: dict[str, int] = field(default_factory=dict)
    """Answered, by the name of the gRPC code."""
    cancelled: int = 0
    """Given up by their callers; not among `requests`."""
    refusals: dict[str, int] = field(default_factory=dict)
    """Turned away at the door, by reason; among `requests` too."""
    circuit_opened: int = 0
    rescued: dict[str, int] = field(default_factory=dict)
    """Answered by the route's fallback in place of this version, by why; among `requests` as what this version did."""
    rescues_refused: int = 0
    rows: int = 0
    batches: int = 0
    inline_batches: int = 0
    releases: dict[str, int] = field(default_factory=dict)
    success_us: int = 0
    queue_us: int = 0
    compute_us: int = 0
    """Of each request its batch's run: a batch of 8 requests adds its time 8 times, as Triton does."""
    request_time: dict[str, Histogram] = field(default_factory=dict)
    """By protocol."""
    queue_time: Histogram | None = None
    run_time: Histogram | None = None
    """Per batch."""
    batch_rows: Histogram | None = None
    arms: dict[str, ArmCounters] = field(default_factory=dict)
    """By name. Also of a version that requests were drawn for while it did not serve."""
    shadow: ShadowCounters | None = None
    endpoints: dict[str, EndpointCounters] = field(default_factory=dict)
    """By address."""


@dataclass(slots=True)
class HubCounters:
    """What belongs to no version."""

    received_bytes: int = 0
    sent_bytes: int = 0
    connections: int = 0
    requests: dict[str, int] = field(default_factory=dict)
    """Answered before any version was found for them, by the name of the gRPC code."""
    refusals: dict[str, int] = field(default_factory=dict)
    cpu_us: int = 0
    snapshots_dropped: int = 0
    unkeyed: dict[str, int] = field(default_factory=dict)
    """By model: requests without the sticky key of its route, drawn at random."""


@dataclass(slots=True)
class Lane:
    """Counters of one version, also of one that is unloaded by now, and its queue at this moment."""

    model: str
    version: str
    counters: LaneCounters
    queued: int = 0
    running: int = 0
    circuit: str = ""
    """closed, open or half_open; "": it has none."""
    endpoints: dict[str, dict[str, int]] = field(default_factory=dict)
    """1 by address and state, for each server that runs it elsewhere."""


@dataclass(slots=True)
class VersionState:
    model: str
    version: str
    state: str
    load_s: float | None = None


@dataclass(slots=True)
class HubNow:
    connections: dict[str, int] = field(default_factory=dict)
    """Open ones, by protocol."""
    open_calls: int = 0
    in_flight_bytes: int = 0
    in_flight_limit_bytes: int = 0
    resident_bytes: int = 0


@dataclass(slots=True)
class StoreNow:
    """How the worker stands with the store."""

    is_up: bool
    revision: int
    """Of the routes in force."""


@dataclass(slots=True)
class Snapshot:
    hub: HubCounters
    now: HubNow = field(default_factory=HubNow)
    lanes: list[Lane] = field(default_factory=list)
    versions: list[VersionState] = field(default_factory=list)
    store: StoreNow | None = None
    """None: it has nothing to do with one."""


_ADAPTER = TypeAdapter(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    """One line of JSON, with its newline."""
    return orjson.dumps(snapshot, option=orjson.OPT_APPEND_NEWLINE)


def decode(line: bytes) -> Snapshot:
    """ValueError for anything else."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError as error:
        raise ValueError(f"no snapshot: {error.errors()[0]['msg']}") from None


def added(left: T, right: T) -> T:
    """The sum of two of a kind: numbers, dictionaries (by key), lists (by place), dataclasses (by field). None is
    nothing.
    """
    return cast(T, _added(left, right))


def _added(left: Any, right: Any) -> Any:
    if left is None or right is None:
        return right if left is None else left
    if isinstance(left, int):
        return left + right
    if isinstance(left, list):
        return [a + b for a, b in zip_longest(left, right, fillvalue=0)]
    if isinstance(left, dict):
        return {key: _added(left.get(key), right.get(key)) for key in {**left, **right}}
    assert is_dataclass(left), f"{type(left).__name__} does not add up"
    kind: Any = type(left)
    return kind(*(_added(getattr(left, f.name), getattr(right, f.name)) for f in fields(left)))


def rows_histogram(batch_sizes: Mapping[int, tuple[int, int]]) -> Histogram:
    """{rows: (batches, anything)} in the buckets of ROWS_BOUNDS."""
    counts = [0] * (len(ROWS_BOUNDS) + 1)
    total = 0
    for rows, (count, _) in batch_sizes.items():
        counts[max(0, min(rows - 1, ROWS_BOUNDS[-1])).bit_length()] += count
        total += rows * count
    return Histogram(counts, total)


def duration_histogram(counted: tuple[Iterable[int], int]) -> Histogram:
    """As the native side has it: (counts, sum_us)."""
    counts, sum_us = counted
    return Histogram(list(counts), sum_us)
