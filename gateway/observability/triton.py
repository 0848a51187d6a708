"""Triton's own metric names, so that a dashboard or an autoscaler made for it works unchanged.

They are counters without `_total`, which OpenMetrics does not have: there they are of type unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.observability.aggregate import Totals
from gateway.observability.snapshot import LaneCounters

_LABELS = ("model", "version")

_COUNTERS: dict[str, tuple[str, Callable[[LaneCounters], int]]] = {
    "nv_inference_request_success": (
        "Requests that succeeded; one with many rows counts once.",
        lambda counters: counters.requests.get("OK", 0),
    ),
    "nv_inference_count": ("Rows inferred.", lambda counters: counters.rows),
    "nv_inference_exec_count": ("Batches executed.", lambda counters: counters.batches),
    "nv_inference_request_duration_us": (
        "Time of successful requests from arrival to answer, cumulative.",
        lambda counters: counters.success_us,
    ),
    "nv_inference_queue_duration_us": (
        "Time of requests in the queue, cumulative.",
        lambda counters: counters.queue_us,
    ),
    "nv_inference_compute_input_duration_us": (
        "Always 0: inputs are gathered within the run, and counted as infer.",
        lambda counters: 0,
    ),
    "nv_inference_compute_infer_duration_us": (
        "Time of runs, cumulative; counted once for each request of the batch.",
        lambda counters: counters.compute_us,
    ),
    "nv_inference_compute_output_duration_us": (
        "Always 0: answers are written within the run, and counted as infer.",
        lambda counters: 0,
    ),
}
_FAILURES = "nv_inference_request_failure"
_REASONS = {
    "DEADLINE_EXCEEDED": "REJECTED",
    "RESOURCE_EXHAUSTED": "REJECTED",
    "UNAVAILABLE": "REJECTED",
    "CANCELLED": "CANCELED",
    "INTERNAL": "BACKEND",
}


def families(totals: Totals) -> Iterator[Metric]:
    for name, (text, value) in _COUNTERS.items():
        family = Metric(name, text, "unknown")
        for (model, version), counters in totals.lanes.items():
            family.add_sample(name, {"model": model, "version": version}, value(counters))
        yield family
    failures = Metric(_FAILURES, "Requests that failed, by reason.", "unknown")
    for (model, version), counters in totals.lanes.items():
        for reason, count in failures_of(counters).items():
            failures.add_sample(_FAILURES, {"model": model, "version": version, "reason": reason}, count)
    yield failures
    pending = GaugeMetricFamily(
        "nv_inference_pending_request_count", "Requests that wait for execution.", labels=_LABELS
    )
    for key, now in totals.queues.items():
        pending.add_metric(key, now.queued)
    yield pending
    load = GaugeMetricFamily("nv_model_load_duration_secs", "Time to load, in the slowest worker.", labels=_LABELS)
    for key, seconds in totals.load_s.items():
        load.add_metric(key, seconds)
    yield load


def failures_of(counters: LaneCounters) -> dict[str, int]:
    """By Triton's reasons, all of them."""
    failures = {"REJECTED": 0, "CANCELED": counters.cancelled, "BACKEND": 0, "OTHER": 0}
    for code, count in counters.requests.items():
        if code != "OK":
            failures[_REASONS.get(code, "OTHER")] += count
    return failures


def as_counters(text: bytes) -> bytes:
    """Prometheus' text format again, with the type that Triton gives them."""
    for name in (*_COUNTERS, _FAILURES):
        text = text.replace(f"# TYPE {name} untyped\n".encode(), f"# TYPE {name} counter\n".encode())
    return text
