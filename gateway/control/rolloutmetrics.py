"""Gauges of live rollouts, and how those that are over ended. Bounded: a model has one live rollout, seldom two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from gateway.store.rolloutrecords import RolloutRecord

_WHO = ("model", "rollout", "version")


def families(live: Iterable[RolloutRecord], outcomes: Mapping[tuple[str, str], int]) -> Iterator[Metric]:
    """`outcomes`: by model and outcome."""
    stage = GaugeMetricFamily("gateway_rollout_stage", "1: the stage that a rollout is in.", labels=(*_WHO, "stage"))
    weight = GaugeMetricFamily("gateway_rollout_weight_ratio", "The candidate's share, as it is wanted.", labels=_WHO)
    held = GaugeMetricFamily("gateway_rollout_held", "1: why a rollout does not go on.", labels=(*_WHO, "hold"))
    worse = GaugeMetricFamily(
        "gateway_rollout_evidence_ratio",
        "How strongly requests speak against the candidate: at 1 it is taken back (logarithm over threshold).",
        labels=(*_WHO, "guardrail"),
    )
    good = GaugeMetricFamily(
        "gateway_rollout_shown_ratio",
        "How strongly requests show the candidate good: at 1 it may go on (logarithm over threshold).",
        labels=(*_WHO, "guardrail"),
    )
    harmed = GaugeMetricFamily("gateway_rollout_harmed_requests", "Requests that the candidate failed.", labels=_WHO)
    looked = GaugeMetricFamily("gateway_rollout_looked_timestamp_seconds", "When it was looked at last.", labels=_WHO)
    for record in live:
        who = (record.model, record.id, record.candidate)
        stage.add_metric((*who, record.stage), 1.0)
        weight.add_metric(who, record.cursor["units"] / 10_000)
        for hold, _ in record.cursor["holds"]:
            held.add_metric((*who, hold), 1.0)
        for row in record.status.get("guardrails", ()):
            for family, log_e, needed in (
                (worse, row["log_e"], row["log_threshold"]),
                (good, row["promote_log_e"], row["promote_log_threshold"]),
            ):
                if (ratio := _ratio(log_e, needed)) is not None:
                    family.add_metric((*who, row["name"]), ratio)
        harmed.add_metric(who, record.status.get("harmed", 0))
        looked.add_metric(who, record.cursor["looked_s"])
    ended = CounterMetricFamily("gateway_rollouts", "Rollouts that are over, by how.", labels=("model", "outcome"))
    for (model, outcome), n in sorted(outcomes.items()):
        ended.add_metric((model, outcome), n)
    yield from (stage, weight, held, worse, good, harmed, looked, ended)


def _ratio(log_e: Any, needed: Any) -> float | None:
    if log_e is None or needed is None or float(needed) <= 0.0:
        return None
    return float(log_e) / float(needed)
