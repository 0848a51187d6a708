"""`/metrics`: the totals as Prometheus reads them, in its text format or in OpenMetrics, whichever was asked for.

Every name keeps to Prometheus' conventions: base units, `_total` for counters, a bounded number of series. The names
that Triton's dashboards ask for come beside them, from `triton`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version as package_version

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from gateway.observability import endpoints, triton
from gateway.observability.aggregate import Key, Totals
from gateway.observability.snapshot import DURATION_BOUNDS_US, ROWS_BOUNDS, ArmCounters, Histogram, LaneCounters

ARM = "stable"
"""Of requests that were counted on no arm."""

CIRCUIT_STATES = ("closed", "open", "half_open")

_VERSION = ("model", "version")
_ARM = (*_VERSION, "arm")
_NO_VERSION = ("", "", "")
"""Labels of what was answered before a version was found for it."""

_ALWAYS_SHOWN = dict.fromkeys(("OK", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "INTERNAL"), 0)
"""At 0 from the start, so that the first of a kind is an increase, which rate() sees."""

DURATION_BOUNDS = [str(bound / 1e6) for bound in DURATION_BOUNDS_US]
_ROWS_BOUNDS = [str(bound) for bound in ROWS_BOUNDS]


def render(totals: Totals, accept: str = "", more: Iterable[Metric] = ()) -> tuple[bytes, str]:
    """Body and content type for an Accept header. `more`: families from elsewhere."""
    encode, content_type = choose_encoder(accept)
    body = encode(Families(totals, more))
    if content_type.startswith("text/plain"):
        body = triton.as_counters(body)
    return body, content_type


class Families(Collector):
    """Totals in the shape that prometheus-client encodes."""

    def __init__(self, totals: Totals, more: Iterable[Metric] = ()) -> None:
        self._totals, self._more = totals, tuple(more)

    def collect(self) -> Iterator[Metric]:
        yield from _requests(self._totals)
        yield from _batches(self._totals.lanes)
        yield from _shadows(self._totals.lanes)
        yield from _rescues(self._totals)
        yield from _traffic(self._totals)
        yield from endpoints.families(self._totals)
        yield from _workers(self._totals)
        yield from triton.families(self._totals)
        yield from self._more


def _requests(totals: Totals) -> Iterator[Metric]:
    lanes, hub = totals.lanes, totals.hub
    requests = CounterMetricFamily("gateway_requests", "Infer requests answered, by gRPC code.", labels=(*_ARM, "code"))
    misses = CounterMetricFamily(
        "gateway_deadline_misses", "Infer requests answered DEADLINE_EXCEEDED, before or after a run.", labels=_ARM
    )
    refusals = CounterMetricFamily(
        "gateway_refusals", "Requests and connections turned away at the door, by reason.", labels=(*_VERSION, "reason")
    )
    for key, counters in lanes.items():
        for arm, side in _sides(counters).items():
            answered = dict(side.requests)
            answered["CANCELLED"] = answered.get("CANCELLED", 0) + side.cancelled
            _add_each(requests, (*key, arm), {**_ALWAYS_SHOWN, **answered})
            misses.add_metric((*key, arm), side.requests.get("DEADLINE_EXCEEDED", 0))
        _add_each(refusals, key, counters.refusals)
    _add_each(requests, _NO_VERSION, hub.requests)
    _add_each(refusals, _NO_VERSION[:2], hub.refusals)
    yield requests
    yield misses
    yield refusals
    unkeyed = CounterMetricFamily(
        "gateway_unkeyed_requests",
        "Infer requests without the sticky key that their model's route asks for; they are drawn at random.",
        labels=["model"],
    )
    _add_each(unkeyed, (), hub.unkeyed)
    yield unkeyed

    duration = HistogramMetricFamily(
        "gateway_request_duration_seconds", "From arrival to answer.", labels=(*_ARM, "protocol")
    )
    for key, counters in lanes.items():
        for arm, side in _sides(counters).items():
            for protocol, histogram in side.request_time.items():
                _add_histogram(duration, (*key, arm, protocol), histogram, DURATION_BOUNDS, 1e6)
    yield duration
    queue = HistogramMetricFamily(
        "gateway_queue_duration_seconds", "From arrival until an executor took the request.", labels=_VERSION
    )
    for key, counters in lanes.items():
        if counters.queue_time:
            _add_histogram(queue, key, counters.queue_time, DURATION_BOUNDS, 1e6)
    yield queue
    queued = GaugeMetricFamily("gateway_queued_requests", "Requests that wait for an executor.", labels=_VERSION)
    for key, now in totals.queues.items():
        queued.add_metric(key, now.queued)
    yield queued
    running = GaugeMetricFamily("gateway_running_batches", "Batches that executors hold.", labels=_VERSION)
    for key, now in totals.queues.items():
        running.add_metric(key, now.running)
    yield running


def _sides(counters: LaneCounters) -> Mapping[str, ArmCounters]:
    """Requests by arm; all on one where nobody tells them apart."""
    return counters.arms or {ARM: ArmCounters(counters.requests, counters.cancelled, counters.request_time)}


def _batches(lanes: Mapping[Key, LaneCounters]) -> Iterator[Metric]:
    run = HistogramMetricFamily("gateway_execution_duration_seconds", "Runs of the model, by batch.", labels=_VERSION)
    rows = HistogramMetricFamily("gateway_batch_rows", "Rows per batch.", labels=_VERSION)
    releases = CounterMetricFamily(
        "gateway_batch_releases",
        "Batches, by why they were released: full, idle (an executor was), delay (max_delay was over), deadline.",
        labels=(*_VERSION, "reason"),
    )
    inline = CounterMetricFamily(
        "gateway_inline_batches", "Batches run on the loop, because that is quicker than a thread.", labels=_VERSION
    )
    for key, counters in lanes.items():
        if counters.run_time:
            _add_histogram(run, key, counters.run_time, DURATION_BOUNDS, 1e6)
        if counters.batch_rows:
            _add_histogram(rows, key, counters.batch_rows, _ROWS_BOUNDS, 1)
        _add_each(releases, key, counters.releases)
        inline.add_metric(key, counters.inline_batches)
    yield run
    yield rows
    yield releases
    yield inline


def _shadows(lanes: Mapping[Key, LaneCounters]) -> Iterator[Metric]:
    drawn = CounterMetricFamily("gateway_shadow_requests", "Requests that a shadow was to get, too.", labels=_VERSION)
    dropped = CounterMetricFamily(
        "gateway_shadow_dropped", "Of those, the ones that no pair of answers came of.", labels=(*_VERSION, "reason")
    )
    compared = CounterMetricFamily("gateway_shadow_compared", "Pairs of answers compared.", labels=_VERSION)
    disagreed = CounterMetricFamily(
        "gateway_shadow_disagreed", "Pairs of answers that differ by more than the tolerance.", labels=_VERSION
    )
    failed = CounterMetricFamily(
        "gateway_shadow_failures", "Requests that the shadow failed on and the primary answered.", labels=_VERSION
    )
    for key, counters in lanes.items():
        if shadow := counters.shadow:
            drawn.add_metric(key, shadow.drawn)
            _add_each(dropped, key, shadow.dropped)
            compared.add_metric(key, shadow.compared)
            disagreed.add_metric(key, shadow.disagreed)
            failed.add_metric(key, shadow.failed)
    yield from (drawn, dropped, compared, disagreed, failed)


def _rescues(totals: Totals) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "gateway_circuit_state", "Workers in which the version's circuit is in this state.", labels=(*_VERSION, "state")
    )
    for key, counts in totals.circuits.items():
        for name in CIRCUIT_STATES:
            state.add_metric((*key, name), counts.get(name, 0))
    opened = CounterMetricFamily("gateway_circuit_opened", "Times that a version was closed off.", labels=_VERSION)
    rescued = CounterMetricFamily(
        "gateway_fallbacks",
        "Requests that the route's fallback answered in place of this version, by why.",
        labels=(*_VERSION, "cause"),
    )
    refused = CounterMetricFamily(
        "gateway_fallbacks_refused", "Failures left as they were: too many were being rescued.", labels=_VERSION
    )
    for key, counters in totals.lanes.items():
        if key in totals.circuits or counters.circuit_opened:
            opened.add_metric(key, counters.circuit_opened)
        _add_each(rescued, key, counters.rescued)
        if counters.rescued or counters.rescues_refused:
            refused.add_metric(key, counters.rescues_refused)
    yield state
    yield opened
    yield rescued
    yield refused


def _traffic(totals: Totals) -> Iterator[Metric]:
    hub, now = totals.hub, totals.now
    yield CounterMetricFamily("gateway_received_bytes", "Bytes read from clients.", value=hub.received_bytes)
    yield CounterMetricFamily("gateway_sent_bytes", "Bytes written to clients.", value=hub.sent_bytes)
    connections = GaugeMetricFamily("gateway_connections", "Connections open.", labels=["protocol"])
    for protocol, count in now.connections.items():
        connections.add_metric([protocol], count)
    yield connections
    # Not gateway_connections_total: OpenMetrics takes the gauge and it for one family, and refuses that.
    yield CounterMetricFamily("gateway_connections_accepted", "Connections accepted.", value=hub.connections)
    yield GaugeMetricFamily("gateway_open_calls", "Calls open on HTTP/2 connections.", value=now.open_calls)
    yield GaugeMetricFamily(
        "gateway_in_flight_bytes", "Request bodies and unsent answers in memory.", value=now.in_flight_bytes
    )
    yield GaugeMetricFamily(
        "gateway_in_flight_limit_bytes", "What they may come to (max_in_flight_bytes).", value=now.in_flight_limit_bytes
    )


def _workers(totals: Totals) -> Iterator[Metric]:
    up = GaugeMetricFamily("gateway_worker_up", "1: the worker runs and has loaded what it could.", labels=["worker"])
    restarts = CounterMetricFamily("gateway_worker_restarts", "Processes started after the first.", labels=["worker"])
    age = GaugeMetricFamily(
        "gateway_worker_report_age_seconds", "Since the worker last reported; it does each second.", labels=["worker"]
    )
    memory = GaugeMetricFamily(
        "gateway_worker_resident_memory_bytes", "Resident memory of the worker.", labels=["worker"]
    )
    store = GaugeMetricFamily(
        "gateway_store_up", "1: the worker reaches the store; 0: it serves by the last routes.", labels=["worker"]
    )
    revision = GaugeMetricFamily(
        "gateway_route_revision", "Of the routes that are in force in the worker.", labels=["worker"]
    )
    for status in totals.workers:
        name = [str(status.worker)]
        if status.store:
            store.add_metric(name, int(status.store.is_up))
            revision.add_metric(name, status.store.revision)
        up.add_metric(name, int(status.is_up))
        restarts.add_metric(name, status.restarts)
        if status.report_age_s is not None:
            age.add_metric(name, status.report_age_s)
        if status.resident_bytes:
            memory.add_metric(name, status.resident_bytes)
    yield up
    yield restarts
    yield age
    yield memory
    yield store
    yield revision
    yield CounterMetricFamily(
        "gateway_worker_cpu_seconds", "Processor time of all workers, user and system.", value=totals.hub.cpu_us / 1e6
    )
    yield CounterMetricFamily(
        "gateway_snapshots_dropped",
        "Reports that a worker skipped because the one before was still on its way.",
        value=totals.hub.snapshots_dropped,
    )
    states = GaugeMetricFamily(
        "gateway_version_state", "Workers in which the version is in this state.", labels=["model", "version", "state"]
    )
    for key, counts in totals.states.items():
        for state, count in counts.items():
            states.add_metric((*key, state), count)
    yield states
    build = GaugeMetricFamily("gateway_build_info", "Always 1; the gateway's own version.", labels=["version"])
    build.add_metric([package_version("gateway")], 1)
    yield build


def _add_each(family: CounterMetricFamily, labels: Sequence[str], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        family.add_metric((*labels, name), count)


def _add_histogram(
    family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram, bounds: Iterable[str], unit: float
) -> None:
    """`unit`: how many of what was counted make one of what is shown."""
    buckets = []
    cumulative = 0
    for bound, count in zip(bounds, histogram.counts, strict=False):
        cumulative += count
        buckets.append((bound, float(cumulative)))
    buckets.append(("+Inf", float(sum(histogram.counts))))
    family.add_metric(labels, buckets, histogram.total / unit)
