"""What a worker counts by version, over lanes that come and go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.observability.snapshot import Histogram
from gateway.serving.telemetry import Ledger, counters_of


@dataclass(eq=False)
class CountingLane:
    """Lane.statistics() and is_idle, as the ledger sees them."""

    n_ok: int = 0
    queued: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def is_idle(self) -> bool:
        return not self.queued

    def statistics(self) -> dict[str, Any]:
        return {
            "requests": {0: self.n_ok} if self.n_ok else {},
            "cancelled": 0,
            "rows": self.n_ok,
            "batches": self.n_ok,
            "inline_batches": 0,
            "releases": {"full": 0, "idle": self.n_ok},
            "queue_us": 0,
            "run_us": 0,
            "refused_rows": 0,
            "refused_bytes": 0,
            "queued": self.queued,
            "running": 0,
            **self.more,
        }


KEY = ("m", "1")


async def rows(ledger: Ledger) -> tuple[int, int]:
    """Rows and queue of KEY."""
    (entry,) = [lane for lane in await ledger.read() if (lane.model, lane.version) == KEY]
    return entry.counters.rows, entry.queued


async def test_a_version_that_is_loaded_again_goes_on_counting_where_it_was() -> None:
    loaded = {KEY: CountingLane(5)}
    ledger = Ledger(lambda: loaded)  # type: ignore[arg-type,return-value]
    assert await rows(ledger) == (5, 0)
    loaded[KEY] = CountingLane(2)
    assert await rows(ledger) == (7, 0)
    loaded[KEY].n_ok = 3
    assert await rows(ledger) == (8, 0)
    del loaded[KEY]
    assert await rows(ledger) == (8, 0)
    assert await rows(ledger) == (8, 0)
    loaded[KEY] = CountingLane(1)
    assert await rows(ledger) == (9, 0)


async def test_requests_that_finish_after_their_version_was_unloaded_count() -> None:
    lane = CountingLane(5, queued=2)
    loaded = {KEY: lane}
    ledger = Ledger(lambda: loaded)  # type: ignore[arg-type,return-value]
    await rows(ledger)
    loaded.clear()
    assert await rows(ledger) == (5, 2)
    loaded[KEY] = CountingLane(1)
    assert await rows(ledger) == (6, 2)
    lane.n_ok, lane.queued = 7, 0
    assert await rows(ledger) == (8, 0)
    lane.n_ok = 99  # an idle lane that nobody routes to counts no more; the ledger has let go of it
    assert await rows(ledger) == (8, 0)


async def test_many_versions_are_all_read() -> None:
    loaded = {("m", str(number)): CountingLane(number) for number in range(1, 101)}
    ledger = Ledger(lambda: loaded)  # type: ignore[arg-type,return-value]
    assert {lane.version: lane.counters.rows for lane in await ledger.read()} == {
        str(number): number for number in range(1, 101)
    }


def test_statistics_of_a_lane_become_counters_by_name() -> None:
    counts = [0] * 21
    more = {
        "requests": {0: 4, 3: 1, 4: 2},
        "cancelled": 3,
        "refused_rows": 6,
        "refused_bytes": 7,
        "refused_late": 8,
        "refused_circuit": 9,
        "circuit_opened": 16,
        "rescued": {"error": 17},
        "rescues_refused": 18,
        "success_us": 10,
        "compute_us": 11,
        "batch_sizes": {1: (2, 50), 3: (1, 60)},
        "histograms": {
            "request_us": {"grpc": (counts, 12), "rest": (tuple(counts), 13)},
            "queue_us": (counts, 14),
            "run_us": (counts, 15),
        },
    }
    counters = counters_of(CountingLane(more=more).statistics())
    assert counters.requests == {"OK": 4, "INVALID_ARGUMENT": 1, "DEADLINE_EXCEEDED": 2}
    assert counters.refusals == {"queue_rows": 6, "queue_bytes": 7, "late": 8, "circuit": 9}
    assert (counters.circuit_opened, counters.rescued, counters.rescues_refused) == (16, {"error": 17}, 18)
    assert (counters.cancelled, counters.success_us, counters.compute_us) == (3, 10, 11)
    assert counters.request_time == {"grpc": Histogram(counts, 12), "rest": Histogram(counts, 13)}
    assert counters.queue_time == Histogram(counts, 14)
    assert counters.run_time == Histogram(counts, 15)
    assert counters.batch_rows is not None
    assert (counters.batch_rows.counts[:3], counters.batch_rows.total) == ([2, 0, 1], 5)


def test_histograms_that_the_native_side_does_not_keep_are_left_out() -> None:
    counters = counters_of(CountingLane(1).statistics())
    assert counters.request_time == {}
    assert counters.queue_time is counters.run_time is counters.batch_rows is None
