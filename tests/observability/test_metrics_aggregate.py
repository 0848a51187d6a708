"""Sums over workers: exact, in any order, and never backwards, whoever dies when."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.observability import aggregate as aggregate_module
from gateway.observability.aggregate import OTHER, Aggregate, Queue
from gateway.observability.snapshot import (
    ROWS_BOUNDS,
    Histogram,
    HubCounters,
    HubNow,
    Lane,
    LaneCounters,
    Snapshot,
    VersionState,
    added,
    decode,
    encode,
    rows_histogram,
)

counts = st.integers(0, 2**40)
histograms = st.builds(Histogram, st.lists(counts, max_size=21), counts)
lane_counters = st.builds(
    LaneCounters,
    requests=st.dictionaries(st.sampled_from(["OK", "INTERNAL"]), counts),
    cancelled=counts,
    refusals=st.dictionaries(st.sampled_from(["queue_rows", "late"]), counts),
    rows=counts,
    batches=counts,
    releases=st.dictionaries(st.sampled_from(["full", "idle"]), counts),
    request_time=st.dictionaries(st.sampled_from(["grpc", "rest"]), histograms),
    queue_time=st.none() | histograms,
    batch_rows=st.none() | histograms,
)


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self) -> float:
        return self.now_s


def counted(n_ok: int, *, queued: int = 0, received: int = 0, model: str = "m", version: str = "1") -> Snapshot:
    lane = Lane(model, version, LaneCounters(requests={"OK": n_ok}, rows=n_ok), queued=queued)
    return Snapshot(HubCounters(received_bytes=received), HubNow(in_flight_bytes=queued), [lane])


def ok(aggregate: Aggregate, model: str = "m", version: str = "1") -> int:
    return aggregate.totals().lanes[model, version].requests["OK"]


@settings(max_examples=30)
@given(lane_counters, lane_counters, lane_counters)
def test_addition_does_not_care_for_order(a: LaneCounters, b: LaneCounters, c: LaneCounters) -> None:
    assert added(a, b).requests == added(b, a).requests
    assert added(added(a, b), c) == added(a, added(b, c))
    assert added(a, LaneCounters()) == added(LaneCounters(), a) == a


@given(
    st.builds(
        Snapshot,
        st.builds(HubCounters),
        st.builds(HubNow),
        st.lists(
            st.builds(Lane, st.text(), st.text(), lane_counters, st.integers(0, 9), st.integers(0, 9)), max_size=3
        ),
        st.lists(st.builds(VersionState, st.text(), st.text(), st.text(), st.none() | st.floats(0, 1e9)), max_size=3),
    )
)
def test_a_snapshot_comes_back_from_its_line(snapshot: Snapshot) -> None:
    line = encode(snapshot)
    assert line.index(b"\n") == len(line) - 1
    assert decode(line) == snapshot


@pytest.mark.parametrize("line", [b"", b"{}", b"[]", b"\xff", b'{"hub": {"received_bytes": "many"}}'])
def test_anything_else_on_the_line_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"^no snapshot: "):
        decode(line)


@given(st.dictionaries(st.integers(1, 10_000), st.tuples(counts, counts), max_size=30))
def test_batches_are_counted_in_the_bucket_that_holds_their_rows(batch_sizes: dict[int, tuple[int, int]]) -> None:
    histogram = rows_histogram(batch_sizes)
    for place, bound in enumerate(ROWS_BOUNDS):
        at_most = sum(count for rows, (count, _) in batch_sizes.items() if rows <= bound)
        assert sum(histogram.counts[: place + 1]) == at_most
    assert sum(histogram.counts) == sum(count for count, _ in batch_sizes.values())
    assert histogram.total == sum(rows * count for rows, (count, _) in batch_sizes.items())


def test_totals_are_sums_over_workers_of_their_latest_snapshots() -> None:
    aggregate = Aggregate(2)
    first, second = aggregate.begin(0), aggregate.begin(1)
    first.report(counted(3, queued=1, received=10))
    first.report(counted(5, queued=2, received=20))
    second.report(counted(7, queued=4, received=40))
    totals = aggregate.totals()
    assert totals.lanes["m", "1"].requests == {"OK": 12}
    assert totals.queues["m", "1"] == Queue(queued=6)
    assert (totals.hub.received_bytes, totals.now.in_flight_bytes) == (60, 6)


def test_what_a_worker_counted_before_it_died_stays_and_its_queue_does_not() -> None:
    aggregate = Aggregate(1)
    life = aggregate.begin(0)
    life.report(counted(5, queued=2))
    aggregate.end(0)
    assert ok(aggregate) == 5
    assert aggregate.totals().queues == {}
    aggregate.begin(0)
    assert ok(aggregate) == 5
    aggregate.begin(0).report(counted(1, queued=1))
    assert ok(aggregate) == 6
    assert aggregate.totals().queues["m", "1"].queued == 1


def test_a_word_from_beyond_the_grave_does_not_count_twice() -> None:
    aggregate = Aggregate(1)
    life = aggregate.begin(0)
    life.report(counted(5))
    aggregate.end(0)
    life.report(counted(6))
    life.ready()
    assert ok(aggregate) == 5


def test_a_line_that_is_no_snapshot_leaves_the_last_one_in_force() -> None:
    aggregate = Aggregate(1)
    life = aggregate.begin(0)
    life.on_line(encode(counted(5)))
    life.on_line(b"nonsense")
    assert ok(aggregate) == 5


def test_totals_do_not_change_with_what_comes_later() -> None:
    aggregate = Aggregate(1)
    life = aggregate.begin(0)
    life.report(counted(5))
    before = aggregate.totals()
    life.report(counted(9))
    aggregate.end(0)
    assert before.lanes["m", "1"].requests == {"OK": 5}


def test_workers_show_whether_they_are_up_how_often_they_restarted_and_how_old_their_word_is() -> None:
    clock = Clock()
    aggregate = Aggregate(2, clock)
    life = aggregate.begin(0)
    life.report(Snapshot(HubCounters(), HubNow(resident_bytes=100)))
    clock.now_s = 2.5
    first, second = aggregate.totals().workers
    assert (first.is_up, first.restarts, first.report_age_s, first.resident_bytes) == (False, 0, 2.5, 100)
    assert (second.is_up, second.restarts, second.report_age_s) == (False, 0, None)
    life.ready()
    assert aggregate.totals().workers[0].is_up
    aggregate.end(0)
    aggregate.begin(0)
    first = aggregate.totals().workers[0]
    assert (first.is_up, first.restarts, first.report_age_s, first.resident_bytes) == (False, 1, None, 0)


def test_states_are_counted_over_workers_and_the_slowest_load_is_shown() -> None:
    aggregate = Aggregate(2)
    for worker, (state, load_s) in enumerate([("READY", 0.5), ("UNAVAILABLE", 2.0)]):
        versions = [VersionState("m", "1", state, load_s), VersionState("m", "2", "LOADING")]
        aggregate.begin(worker).report(Snapshot(HubCounters(), versions=versions))
    totals = aggregate.totals()
    assert totals.states == {("m", "1"): {"READY": 1, "UNAVAILABLE": 1}, ("m", "2"): {"LOADING": 2}}
    assert totals.load_s == {("m", "1"): 2.0}


def test_versions_beyond_the_bound_share_one_series_and_keep_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregate_module, "MAX_VERSIONS", 2)
    aggregate = Aggregate(1)
    life = aggregate.begin(0)
    lanes = [Lane("m", str(version), LaneCounters(requests={"OK": version})) for version in (1, 2, 3, 4)]
    life.report(Snapshot(HubCounters(), lanes=lanes))
    assert {key: c.requests["OK"] for key, c in aggregate.totals().lanes.items()} == {
        ("m", "1"): 1,
        ("m", "2"): 2,
        (OTHER, OTHER): 7,
    }
    aggregate.end(0)
    aggregate.begin(0).report(Snapshot(HubCounters(), lanes=lanes[2:3]))
    assert ok(aggregate, OTHER, OTHER) == 10


steps = st.lists(
    st.tuples(st.sampled_from(["start", "count", "die"]), st.integers(0, 2), st.sampled_from("12"), st.integers(0, 9)),
    max_size=40,
)


@given(steps)
def test_no_counter_ever_goes_backwards_and_nothing_reported_is_lost(steps: list[tuple[str, int, str, int]]) -> None:
    aggregate = Aggregate(3)
    lives = [aggregate.begin(worker) for worker in range(3)]
    alive: list[dict[str, int]] = [{}, {}, {}]
    expected: dict[tuple[str, str], int] = {}
    for what, worker, version, n in steps:
        if what == "start":
            lives[worker], alive[worker] = aggregate.begin(worker), {}
        elif what == "die":
            aggregate.end(worker)
            lives[worker], alive[worker] = aggregate.begin(worker), {}
        else:
            alive[worker][version] = alive[worker].get(version, 0) + n
            expected["m", version] = expected.get(("m", version), 0) + n
            lanes = [Lane("m", key, LaneCounters(rows=count)) for key, count in alive[worker].items()]
            lives[worker].report(Snapshot(HubCounters(), lanes=lanes))
        assert {key: counters.rows for key, counters in aggregate.totals().lanes.items()} == expected
