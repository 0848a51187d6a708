"""The text at /metrics: read back by prometheus-client's own parsers, and judged by promtool."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from gateway.observability.aggregate import Aggregate, Totals
from gateway.observability.metrics import render
from gateway.observability.snapshot import (
    DURATION_BOUNDS_US,
    Histogram,
    HubCounters,
    HubNow,
    Lane,
    LaneCounters,
    Snapshot,
    VersionState,
    rows_histogram,
)

ODD = 'a "quoted\\" \n model'

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def times(*us: int) -> Histogram:
    """Slow twin of histogram.pxd."""
    counts = [0] * (len(DURATION_BOUNDS_US) + 1)
    for one in us:
        counts[sum(one > bound for bound in DURATION_BOUNDS_US)] += 1
    return Histogram(counts, sum(us))


def totals(model: str = "m") -> Totals:
    counters = LaneCounters(
        requests={"OK": 4, "INVALID_ARGUMENT": 1, "DEADLINE_EXCEEDED": 2, "RESOURCE_EXHAUSTED": 3, "INTERNAL": 6},
        cancelled=5,
        refusals={"queue_rows": 2, "queue_bytes": 1},
        circuit_opened=2,
        rescued={"error": 3, "circuit_open": 40},
        rescues_refused=1,
        rows=9,
        batches=3,
        inline_batches=1,
        releases={"full": 1, "idle": 2, "delay": 0, "deadline": 0},
        success_us=1000,
        queue_us=200,
        compute_us=300,
        request_time={"grpc": times(40, 50, 51, 2_000_000), "rest": times(200_000_000)},
        queue_time=times(10),
        run_time=times(700),
        batch_rows=rows_histogram({1: (1, 0), 4: (2, 0)}),
    )
    hub = HubCounters(100, 200, 7, {"NOT_FOUND": 8}, {"unknown_model": 8, "max_connections": 1}, 1_500_000, 0)
    now = HubNow({"grpc": 2, "rest": 1}, 3, 4096, 2**30, 10**8)
    aggregate = Aggregate(1)
    versions = [VersionState(model, "1", "READY", 0.25)]
    aggregate.begin(0).report(Snapshot(hub, now, [Lane(model, "1", counters, 6, 1, "open")], versions))
    return aggregate.totals()


def samples(body: bytes, is_open: bool = False) -> Samples:
    parse = parse_openmetrics if is_open else parse_text
    found: Samples = {}
    for family in parse(body.decode()):
        for sample in family.samples:
            # The parser adds to a counter what it thinks is missing; Triton's have no _total.
            name = sample.name.removesuffix("_total") if family.name.startswith("nv_") else sample.name
            key = name, frozenset(sample.labels.items())
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


VERSION = {"model": "m", "version": "1"}
ARM = {**VERSION, "arm": "stable"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
def test_counts_come_out_as_they_went_in(accept: str) -> None:
    body, content_type = render(totals(), accept)
    assert content_type.startswith("application/openmetrics-text" if accept else "text/plain; version=0.0.4")
    got = samples(body, is_open=bool(accept))
    assert value(got, "gateway_requests_total", **ARM, code="OK") == 4
    assert value(got, "gateway_requests_total", **ARM, code="CANCELLED") == 5
    assert value(got, "gateway_requests_total", model="", version="", arm="", code="NOT_FOUND") == 8
    assert value(got, "gateway_deadline_misses_total", **ARM) == 2
    assert value(got, "gateway_refusals_total", **VERSION, reason="queue_rows") == 2
    assert value(got, "gateway_refusals_total", model="", version="", reason="max_connections") == 1
    assert value(got, "gateway_batch_releases_total", **VERSION, reason="idle") == 2
    assert value(got, "gateway_received_bytes_total") == 100
    assert value(got, "gateway_sent_bytes_total") == 200
    assert value(got, "gateway_connections", protocol="grpc") == 2
    assert value(got, "gateway_connections_accepted_total") == 7
    assert value(got, "gateway_in_flight_bytes") == 4096
    assert value(got, "gateway_queued_requests", **VERSION) == 6
    assert value(got, "gateway_worker_up", worker="0") == 0
    assert value(got, "gateway_version_state", model="m", version="1", state="READY") == 1
    assert value(got, "gateway_worker_cpu_seconds_total") == 1.5


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
def test_durations_are_cumulative_histograms_in_seconds(accept: str) -> None:
    got = samples(render(totals(), accept)[0], is_open=bool(accept))
    name, grpc = "gateway_request_duration_seconds", {**ARM, "protocol": "grpc"}
    bounds = {"5e-05": 2, "0.0001": 3, "1.0": 3, "2.0": 4, "100.0": 4, "+Inf": 4}
    assert {bound: value(got, f"{name}_bucket", **grpc, le=bound) for bound in bounds} == bounds
    assert value(got, f"{name}_count", **grpc) == 4
    assert value(got, f"{name}_sum", **grpc) == pytest.approx(2.000141)
    rest = {**ARM, "protocol": "rest"}
    assert value(got, f"{name}_bucket", **rest, le="100.0") == 0
    assert value(got, f"{name}_bucket", **rest, le="+Inf") == 1
    assert value(got, "gateway_queue_duration_seconds_count", **VERSION) == 1
    assert value(got, "gateway_execution_duration_seconds_sum", **VERSION) == 0.0007
    assert value(got, "gateway_batch_rows_bucket", **VERSION, le="2") == 1
    assert value(got, "gateway_batch_rows_bucket", **VERSION, le="4") == 3
    assert value(got, "gateway_batch_rows_sum", **VERSION) == 9


def test_triton_names_have_tritons_labels_units_and_types() -> None:
    body, _ = render(totals())
    got, lane = samples(body), {"model": "m", "version": "1"}
    assert value(got, "nv_inference_request_success", **lane) == 4
    reasons = {"REJECTED": 5, "CANCELED": 5, "BACKEND": 6, "OTHER": 1}
    assert {r: value(got, "nv_inference_request_failure", **lane, reason=r) for r in reasons} == reasons
    assert value(got, "nv_inference_count", **lane) == 9
    assert value(got, "nv_inference_exec_count", **lane) == 3
    assert value(got, "nv_inference_request_duration_us", **lane) == 1000
    assert value(got, "nv_inference_queue_duration_us", **lane) == 200
    assert value(got, "nv_inference_compute_infer_duration_us", **lane) == 300
    assert value(got, "nv_inference_compute_input_duration_us", **lane) == 0
    assert value(got, "nv_inference_compute_output_duration_us", **lane) == 0
    assert value(got, "nv_inference_pending_request_count", **lane) == 6
    assert value(got, "nv_model_load_duration_secs", **lane) == 0.25
    types = {family.name: family.type for family in parse_text(body.decode()) if family.name.startswith("nv_")}
    assert types.pop("nv_inference_pending_request_count") == types.pop("nv_model_load_duration_secs") == "gauge"
    assert set(types.values()) == {"counter"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS], ids=["text", "openmetrics"])
def test_the_name_of_a_model_cannot_break_a_line(accept: str) -> None:
    got = samples(render(totals(ODD), accept)[0], is_open=bool(accept))
    assert value(got, "nv_inference_count", model=ODD, version="1") == 9


def test_a_gateway_that_has_heard_of_no_worker_yet_has_metrics_all_the_same() -> None:
    empty = Aggregate(2).totals()
    got = samples(render(empty)[0])
    assert value(got, "gateway_worker_up", worker="1") == 0
    samples(render(empty, OPENMETRICS)[0], is_open=True)


def test_labels_that_vary_without_bound_are_on_no_metric() -> None:
    names = {name for _, labels in samples(render(totals())[0]) for name, _ in labels}
    assert names == {"model", "version", "arm", "code", "reason", "protocol", "le", "worker", "state", "cause"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's package prometheus")
def test_promtool_finds_no_fault_but_with_names_that_triton_chose() -> None:
    body, _ = render(totals(ODD))
    done = subprocess.run(["promtool", "check", "metrics"], input=body, capture_output=True, timeout=90, check=False)
    faults = done.stderr.decode().splitlines()
    assert done.returncode in (0, 3), faults  # 3: it would have named something otherwise
    assert [fault for fault in faults if not fault.startswith("nv_")] == []


def test_circuits_and_fallbacks_are_shown_for_the_version_that_failed() -> None:
    found = samples(render(totals())[0])
    version = {("model", "m"), ("version", "1")}
    for state, workers in (("closed", 0), ("open", 1), ("half_open", 0)):
        assert found["gateway_circuit_state", frozenset({*version, ("state", state)})] == workers
    assert found["gateway_circuit_opened_total", frozenset(version)] == 2
    assert found["gateway_fallbacks_total", frozenset({*version, ("cause", "error")})] == 3
    assert found["gateway_fallbacks_total", frozenset({*version, ("cause", "circuit_open")})] == 40
    assert found["gateway_fallbacks_refused_total", frozenset(version)] == 1
