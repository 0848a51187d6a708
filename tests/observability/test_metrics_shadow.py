"""Shadows in the metrics: by version, over all workers, also of those that died."""

from __future__ import annotations

from gateway.observability.aggregate import Aggregate
from gateway.observability.metrics import render
from gateway.observability.snapshot import HubCounters, Lane, LaneCounters, ShadowCounters, Snapshot, decode, encode


def told(drawn: int, dropped: dict[str, int], compared: int, disagreed: int, failed: int) -> Snapshot:
    shadow = ShadowCounters(drawn, dropped, compared, disagreed, failed)
    lanes = [Lane("m", "1", LaneCounters()), Lane("m", "2", LaneCounters(shadow=shadow))]
    return decode(encode(Snapshot(HubCounters(), lanes=lanes)))


def test_what_workers_tell_of_a_shadow_adds_up() -> None:
    aggregate = Aggregate(2)
    aggregate.begin(0).report(told(10, {"oldest": 2}, 7, 3, 1))
    aggregate.begin(1).report(told(5, {"oldest": 1, "misfit": 1}, 3, 0, 0))
    aggregate.end(1)
    text = render(aggregate.totals())[0].decode()
    for line in (
        'gateway_shadow_requests_total{model="m",version="2"} 15.0',
        'gateway_shadow_dropped_total{model="m",reason="oldest",version="2"} 3.0',
        'gateway_shadow_dropped_total{model="m",reason="misfit",version="2"} 1.0',
        'gateway_shadow_compared_total{model="m",version="2"} 10.0',
        'gateway_shadow_disagreed_total{model="m",version="2"} 3.0',
        'gateway_shadow_failures_total{model="m",version="2"} 1.0',
    ):
        assert line in text.splitlines()
    assert 'gateway_shadow_requests_total{model="m",version="1"}' not in text
