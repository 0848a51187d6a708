"""Servers that run versions elsewhere, in `/metrics`: what was asked of each, how it ended, and who is asked now."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from gateway.observability.aggregate import Totals

_LABELS = ("model", "version", "endpoint")


def families(totals: Totals) -> Iterator[Metric]:
    """Nothing at all where everything runs in this process."""
    if not totals.endpoints and not any(counters.endpoints for counters in totals.lanes.values()):
        return
    attempts = CounterMetricFamily(
        "gateway_endpoint_attempts", "Batches sent to the server, by how it ended.", labels=(*_LABELS, "outcome")
    )
    repeated = CounterMetricFamily(
        "gateway_endpoint_repeated", "Of them after, or beside, an attempt at another server.", labels=_LABELS
    )
    ejections = CounterMetricFamily("gateway_endpoint_ejections", "Times that it was left alone.", labels=_LABELS)
    ways = CounterMetricFamily(
        "gateway_endpoint_sent", "Batches sent to the server, by how their tensors got there.", labels=(*_LABELS, "way")
    )
    for key, counters in totals.lanes.items():
        for address, counted in counters.endpoints.items():
            for outcome, count in counted.attempts.items():
                attempts.add_metric((*key, address, outcome), count)
            repeated.add_metric((*key, address), counted.repeated)
            ejections.add_metric((*key, address), counted.ejections)
            for way, count in counted.ways.items():
                ways.add_metric((*key, address, way), count)
    state = GaugeMetricFamily(
        "gateway_endpoint_state", "Workers in which the server is in this state.", labels=(*_LABELS, "state")
    )
    for key, addresses in totals.endpoints.items():
        for address, states in addresses.items():
            for name, count in states.items():
                state.add_metric((*key, address, name), count)
    yield attempts
    yield repeated
    yield ejections
    yield ways
    yield state
