"""Gauges of drift, column by column, from the last reports. Bounded: of each version MAX_COLUMNS, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from gateway.monitoring.alarms import Alarm
from gateway.monitoring.driftreport import DriftReport

MAX_COLUMNS = 256
"""A version with more has its totals, and its columns in the API: each column is four series."""
WINDOW = "10m"

_VERSION = ("model", "version")
_COLUMN = (*_VERSION, "side", "column")


def families(reports: Iterable[DriftReport], alarms: Iterable[Alarm]) -> Iterator[Metric]:
    """In whatever order the reports are, columns keep their series."""
    reports = list(reports)
    score = GaugeMetricFamily(
        "gateway_drift_score", "Distance from the profile, last judged window; 1 is what is tolerated.", labels=_COLUMN
    )
    psi = GaugeMetricFamily(
        "gateway_drift_psi", f"Population stability index over {WINDOW}, corrected for chance.", labels=_COLUMN
    )
    missing = GaugeMetricFamily(
        "gateway_drift_missing_ratio", f"NaN, infinite, missing; malformed requests: over {WINDOW}.", labels=_COLUMN
    )
    strange = GaugeMetricFamily(
        "gateway_drift_strange_ratio", f"Out of the profile's range or vocabulary, over {WINDOW}.", labels=_COLUMN
    )
    columns = GaugeMetricFamily("gateway_drift_columns", "Watched columns.", labels=(*_VERSION, "status"))
    judged = GaugeMetricFamily(
        "gateway_drift_judged_timestamp_seconds", "End of the last minute that was judged.", labels=_VERSION
    )
    for report in reports:
        version = report.model, report.version
        judged.add_metric(version, report.judged_until)
        counts = dict.fromkeys(("waiting", "ok", "moved", "alarm"), 0)
        for column in report.columns:
            counts[column.status] += 1
        for status, count in counts.items():
            columns.add_metric((*version, status), count)
        for column in sorted(report.columns, key=lambda each: each.name)[:MAX_COLUMNS]:
            labels = (*version, column.side, column.name)
            window = column.windows[WINDOW]
            if column.score is not None:
                score.add_metric(labels, column.score)
            if window.psi is not None and window.is_enough:
                psi.add_metric(labels, window.psi)
            if window.level.n:
                missing.add_metric(labels, window.level.missing)
                strange.add_metric(labels, window.level.strange)
    live = GaugeMetricFamily("gateway_drift_alarm", "1: an alarm is open or acknowledged.", labels=(*_VERSION, "side"))
    there = {(alarm.model, alarm.version, alarm.side) for alarm in alarms if alarm.is_live}
    for report in reports:
        for side in ("input", "output", "schema"):
            live.add_metric((report.model, report.version, side), float((report.model, report.version, side) in there))
    yield from (score, psi, missing, strange, columns, judged, live)
