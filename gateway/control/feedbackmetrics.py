"""Counters of feedback for Prometheus, from the kept sums: the same whichever process took the reports. Bounded: of
each version MAX_VALUES values, by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, Metric

from gateway.feedback.report import VALUE
from gateway.feedback.tally import CONFUSION, ERROR, OUTCOME, Tally

MAX_VALUES = 64
_VERSION = ("model", "version")


def families(sums: Mapping[tuple[str, str, str, str], Tally]) -> Iterator[Metric]:
    """No series before the first report."""
    reports = CounterMetricFamily(
        "gateway_feedback_reports",
        'Reports of answers; without a right token, of model "".',
        labels=(*_VERSION, "status"),
    )
    labels = CounterMetricFamily(
        "gateway_feedback_labels", "Labels of predicted classes, by whether they agree.", labels=(*_VERSION, "result")
    )
    errors = CounterMetricFamily(
        "gateway_feedback_absolute_error", "Sum over labels of predicted numbers.", labels=_VERSION
    )
    errors_n = CounterMetricFamily("gateway_feedback_absolute_errors", "Labels of predicted numbers.", labels=_VERSION)
    total = CounterMetricFamily("gateway_feedback_value", "Sum of reported values.", labels=(*_VERSION, "name"))
    total_n = CounterMetricFamily("gateway_feedback_values", "Reported values.", labels=(*_VERSION, "name"))
    results: dict[tuple[str, str, str], int] = {}
    n_values: dict[tuple[str, str], int] = {}
    for (model, version, kind, name), tally in sorted(sums.items()):
        which = (model, version)
        if kind == OUTCOME:
            reports.add_metric((*which, name), tally.n)
        elif kind == CONFUSION:
            for result, n in (("right", tally.hits), ("wrong", tally.n - tally.hits)):
                results[*which, result] = results.get((*which, result), 0) + n
        elif kind == ERROR:
            errors.add_metric(which, tally.total)
            errors_n.add_metric(which, tally.n)
        elif kind == VALUE and n_values.setdefault(which, 0) < MAX_VALUES:
            n_values[which] += 1
            total.add_metric((*which, name), tally.total)
            total_n.add_metric((*which, name), tally.n)
    for key, n in results.items():
        labels.add_metric(key, n)
    yield from (reports, labels, errors, errors_n, total, total_n)
