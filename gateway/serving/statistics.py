"""What versions have done since they were loaded, in Triton's form, added up over the workers.

A tally is the plain form of one version's counters in one worker: integers that add up, fit for JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gateway import pb
from gateway.serving.catalog import Catalog, ServedVersion
from gateway.serving.held import Holdings

Tally = dict[str, Any]
"""model, version, rows, batches, last_ms (since 1970; 0: never), [count, us] of success, fail, queue and compute, and
batch_sizes: rows as text -> [count, us].
"""

_OK = 0
_DURATIONS = ("success", "fail", "queue", "compute")


def chosen(catalog: Catalog, model: str, version: str) -> list[ServedVersion]:
    """The versions that were asked for: of all models when `model` is empty. NotFound and Unavailable as `resolve`."""
    if model and version:
        return [catalog.resolve(model, version)]
    if model:
        catalog.resolve(model)
    names = [model] if model else catalog.models()
    return [entry for name in names for entry in catalog.versions(name) if entry.is_ready]


def tallies(entries: Iterable[ServedVersion], holdings: Holdings, wall: Callable[[], float] = time.time) -> list[Tally]:
    """Of this worker's lanes."""
    return [tally(entry, holdings[entry].lane.statistics(), wall()) for entry in entries if entry in holdings]


def tally(entry: ServedVersion, counters: Mapping[str, Any], now_s: float) -> Tally:
    """From Lane.statistics(); `now_s` is wall time, for people only."""
    codes: Mapping[int, int] = counters["requests"]
    n_ok = codes.get(_OK, 0)
    n_failed = sum(codes.values()) - n_ok + counters["cancelled"]
    n_started, queue_us = n_ok, counters["queue_us"]
    if queue := counters.get("histograms", {}).get("queue_us"):
        n_started, queue_us = sum(queue[0]), queue[1]
    last_us = counters.get("last_us", 0)
    return {
        "model": entry.model,
        "version": entry.version,
        "rows": counters["rows"],
        "batches": counters["batches"],
        "last_ms": round((now_s - time.monotonic()) * 1e3 + last_us / 1e3) if last_us else 0,
        "success": [n_ok, counters.get("success_us", 0)],
        "fail": [n_failed, counters.get("failure_us", 0)],
        "queue": [n_started, queue_us],
        "compute": [n_ok, counters.get("compute_us", 0)],
        "batch_sizes": {str(rows): [*cost] for rows, cost in counters.get("batch_sizes", {}).items()},
    }


def added(groups: Iterable[Iterable[Tally]]) -> list[Tally]:
    """One tally per version, over all workers; by model and version."""
    sums: dict[tuple[str, int], Tally] = {}
    for group in groups:
        for one in group:
            key = one["model"], int(one["version"])
            total = sums.get(key)
            if total is None:
                sums[key] = {**one, "batch_sizes": dict(one["batch_sizes"])}
                continue
            for name in ("rows", "batches"):
                total[name] += one[name]
            total["last_ms"] = max(total["last_ms"], one["last_ms"])
            for name in _DURATIONS:
                total[name] = _plus(total[name], one[name])
            for rows, cost in one["batch_sizes"].items():
                total["batch_sizes"][rows] = _plus(total["batch_sizes"].get(rows, [0, 0]), cost)
    return [sums[key] for key in sorted(sums)]


def to_triton(sums: Iterable[Tally]) -> Any:
    """pb.inference.ModelStatisticsResponse. Copying in and out is part of the run here, so compute_input and
    compute_output have a count and no time; there is no cache.
    """
    return pb.inference.ModelStatisticsResponse(model_stats=[_model(one) for one in sums])


def _model(one: Tally) -> Any:
    copies = _duration([one["compute"][0], 0])
    return pb.inference.ModelStatistics(
        name=one["model"],
        version=one["version"],
        last_inference=one["last_ms"],
        inference_count=one["rows"],
        execution_count=one["batches"],
        inference_stats=pb.inference.InferStatistics(
            success=_duration(one["success"]),
            fail=_duration(one["fail"]),
            queue=_duration(one["queue"]),
            compute_input=copies,
            compute_infer=_duration(one["compute"]),
            compute_output=copies,
            cache_hit=_duration([0, 0]),
            cache_miss=_duration([0, 0]),
        ),
        batch_stats=[
            pb.inference.InferBatchStatistics(
                batch_size=int(rows),
                compute_input=_duration([cost[0], 0]),
                compute_infer=_duration(cost),
                compute_output=_duration([cost[0], 0]),
            )
            for rows, cost in sorted(one["batch_sizes"].items(), key=lambda item: int(item[0]))
        ],
    )


def _duration(cost: list[int]) -> Any:
    return pb.inference.StatisticDuration(count=cost[0], ns=cost[1] * 1000)


def _plus(left: list[int], right: list[int]) -> list[int]:
    return [left[0] + right[0], left[1] + right[1]]
