"""Requests by arm: from what the native side counted to the lines of /metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.native.arm import Arm
from gateway.observability.aggregate import Aggregate
from gateway.observability.metrics import render
from gateway.observability.snapshot import HubCounters, Lane, LaneCounters, Snapshot, decode, encode
from gateway.routing.armbook import ArmBook
from gateway.serving.telemetry import add_arms
from tests.serving.test_routed_traffic import Caller, store_number
from tests.support.inprocess import serving
from tests.support.oip import connect
from tests.support.rest import RestClient, one


def lanes_of(book: ArmBook) -> dict[tuple[str, str], LaneCounters]:
    """As a worker reports them, over the wire to its supervisor."""
    lanes = [Lane("m", "1", LaneCounters(requests={"OK": 1}))]
    add_arms(lanes, book)
    line = encode(Snapshot(HubCounters(), lanes=lanes))
    return {(lane.model, lane.version): lane.counters for lane in decode(line.rstrip(b"\n")).lanes}


def rows(body: bytes, name: str) -> dict[tuple[str, ...], float]:
    """Values above 0 of one sample, by its labels' values in the order model, version, arm, and the rest."""
    found = {}
    order = ["model", "version", "arm", "code", "protocol"]
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[tuple(sample.labels[key] for key in order if key in sample.labels)] = sample.value
    return found


def test_requests_and_durations_are_told_apart_by_arm(tmp_path: Path) -> None:
    for version in (1, 2):
        store_number(tmp_path, version)
    document: dict[str, Any] = {
        "versions": {"1": 50, "2": 50},
        "rules": [
            {"name": "one", "match": {"header": "x", "exact": "1"}, "versions": {"1": 100}},
            {"name": "gone", "match": {"header": "x", "exact": "9"}, "versions": {"9": 100}},
        ],
        "sticky": {"parameter": "user"},
    }
    with serving(tmp_path) as gateway, connect(gateway.url) as channel, RestClient(gateway.url) as rest:
        ask = Caller(channel)
        gateway.route({"m": document})
        for _ in range(3):
            assert ask(x="1") == 1
        assert rest.infer("m", one(), x="1").status == 200
        assert rest.infer("m", one(), x="9").status == 503
        seen = {ask(parameters={"user": str(user)}) for user in range(30)}
        assert seen == {1, 2}
        ask()
        lanes = gateway.do(lambda: lanes_of(gateway.routing.arms))
        unkeyed = gateway.do(lambda: gateway.routing.arms.tally("m").unkeyed)
    assert unkeyed == 1
    aggregate = Aggregate(1)
    snapshot = Snapshot(
        HubCounters(unkeyed={"m": unkeyed}), lanes=[Lane(*key, counters) for key, counters in lanes.items()]
    )
    aggregate.begin(0).report(snapshot)
    body, _ = render(aggregate.totals())
    requests = rows(body, "gateway_requests_total")
    assert requests["m", "1", "one", "OK"] == 4
    assert requests["m", "9", "gone", "UNAVAILABLE"] == 1
    assert requests["m", "1", "stable", "OK"] + requests["m", "2", "candidate", "OK"] == 31
    assert len(requests) == 4
    counts = rows(body, "gateway_request_duration_seconds_count")
    assert (counts["m", "1", "one", "grpc"], counts["m", "1", "one", "rest"]) == (3, 1)
    assert rows(body, "gateway_unkeyed_requests_total") == {("m",): 1}


def test_arms_of_several_workers_and_lives_add_up() -> None:
    book = ArmBook()
    arm = book.arm("m", "1", "stable", 1)
    lanes = lanes_of(book)
    lanes["m", "1"].arms["stable"].requests["OK"] = 5
    aggregate = Aggregate(2)
    for worker in (0, 1, 0):
        aggregate.begin(worker).report(Snapshot(HubCounters(), lanes=[Lane("m", "1", lanes["m", "1"])]))
    assert aggregate.totals().lanes["m", "1"].arms["stable"].requests == {"OK": 15}
    assert isinstance(arm, Arm)


def test_the_gateways_own_arms_are_shown_once_something_fell_on_them() -> None:
    book = ArmBook()
    book.arm("m", "1", "pinned", 1)
    book.arm("m", "1", "stable", 1)
    assert set(lanes_of(book)["m", "1"].arms) == {"stable"}
