"""The worker's side of shadows: the lanes they run in, the thread for large comparisons, and what is told of them.

A version has a twin lane for shadow work, with a thread of its own that starts with the first batch: who waits for an
answer never stands behind a shadow. Affinity: owning loop, but for the comparisons themselves.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson

from gateway.backends.base import Backend
from gateway.batching.policy import LanePolicy
from gateway.config.shadows import Shadowing
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.native.shadow import Job, ShadowStats
from gateway.native.signature import Signature
from gateway.observability.snapshot import Lane as LaneSnapshot
from gateway.observability.snapshot import LaneCounters, ShadowCounters
from gateway.routing import shadowreport
from gateway.serving.executors import Runs, connect
from gateway.store.records import Report

PAIR, DISAGREEMENT, REQUESTS = "pair", "disagreement", "shadow"
"""Kinds of reports."""

KEEP_CLOSED_S = 60.0
"""How long the last reports of a stage that is over are told again: the store may be out of reach for a while."""

MAX_CLOSED_BYTES = 4 * 2**20
"""Of those reports: a route that changes again and again must not fill the memory with what it once was."""

GATHER_US = 2_000
"""For so long shadow requests are gathered into a batch. It never runs on the loop thread, however quick the version
was when it was measured: who waits for an answer must not wait for a shadow that hangs. At 20,000 requests a second,
some 40 then share the way to the thread and back.
"""

MAX_ROWS = 64
"""Of one batch: its answers are written and settled under the GIL, at about a microsecond each."""

Key = tuple[str, str]
"""Model and version, of the shadow."""


def twin(
    hub: Hub,
    signature: Signature,
    backend: Backend,
    policy: LanePolicy,
    report: Callable[[BaseException], None],
    runs: Runs,
) -> Lane:
    """The lane for shadow work of a version: one batch at a time, and no wishes of callers."""
    lane = Lane(
        signature,
        backend.run,
        runs.submit,
        report,
        hub.timers,
        hub.background,
        max_batch_size=min(policy.max_batch_size, MAX_ROWS),
        max_batch_bytes=policy.max_batch_bytes,
        max_delay_us=GATHER_US,
        max_queue_rows=policy.max_queue_rows,
        max_queue_bytes=policy.max_queue_bytes,
        inline_below_us=0,
        alone_bytes=policy.alone_bytes,
        counts_cpu=policy.counts_cpu,
        occupancy=None if backend.runs_elsewhere else hub.occupancy,
        is_background=True,
    )
    for rows, cost_us in backend.costs_us:
        lane.learn(rows, cost_us)
    connect(lane, runs)
    return lane


class Shadows:
    """One per worker."""

    def __init__(self, hub: Hub, settings: Shadowing | None = None, clock: Callable[[], float] = time.time) -> None:
        settings = settings or Shadowing()
        self._mirror, self._clock = hub.mirror, clock
        self._mirror.least_time_us = int(settings.least_time_s * 1e6)
        self._mirror.time_factor = settings.time_factor
        self._mirror.absolute, self._mirror.relative = settings.absolute_tolerance, settings.relative_tolerance
        self._wall_offset_s = clock() - time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._told: dict[tuple[str, ...], bytes] = {}
        self._closed: list[tuple[float, Report]] = []
        self._counts: dict[Key, ShadowCounters] = {}
        self.closing: Callable[[ShadowStats], None] | None = None
        """Told of counters that are about to be forgotten."""
        self._mirror.offload = self._compare
        self._mirror.on_new = lambda: self._loop.call_soon(self._forget, self._clock())

    def close(self) -> None:
        """The process is about to exit."""
        self._mirror.offload = self._mirror.on_new = None
        self._jobs.put(None)

    # --- large comparisons

    def _compare(self, job: Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="compare", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.run()
            try:
                self._loop.call_soon_threadsafe(job.done)
            except RuntimeError:  # the loop is closed
                return
            del job

    # --- what is told

    def read(self) -> list[Report]:
        """What has changed since the last time, for the store."""
        now = self._clock()
        self._forget(now)
        reports = [report for _, report in self._closed]
        for stats in self._mirror.stats.values():
            for report in self._reports(stats, now):
                key = (report.kind, report.model, report.version, report.key)
                if self._told.get(key) != report.body:
                    self._told[key] = report.body
                    reports.append(report)
        return reports

    def counts(self) -> dict[Key, ShadowCounters]:
        """For the metrics: since start, over all stages, also those that are forgotten."""
        self._forget(self._clock())
        totals = {key: replace(counts, dropped=dict(counts.dropped)) for key, counts in self._counts.items()}
        for stats in self._mirror.stats.values():
            _add(totals.setdefault((stats.arm.model, stats.arm.version), ShadowCounters()), stats)
        return totals

    def add_to(self, lanes: list[LaneSnapshot]) -> None:
        """To each version what came of it as a shadow."""
        by_key = {(lane.model, lane.version): lane for lane in lanes}
        for key, counts in self.counts().items():
            if key not in by_key:
                by_key[key] = LaneSnapshot(*key, LaneCounters())
                lanes.append(by_key[key])
            by_key[key].counters.shadow = counts

    def _reports(self, stats: ShadowStats, now: float) -> list[Report]:
        arm = stats.arm
        found = [(REQUESTS, str(arm.stage), shadowreport.requests_document(stats))]
        for tally in stats.pairs.values():
            primary = f"{tally.primary.version}/{tally.primary.name}" if tally.primary else ""
            key = f"{arm.stage}/{primary}"
            found.append((PAIR, key, shadowreport.pairs_document(tally)))
            if tally.recent:
                found.append((DISAGREEMENT, key, shadowreport.disagreements_document(tally, self._wall_offset_s)))
        return [Report(kind, arm.model, arm.version, key, _json(document), now) for kind, key, document in found]

    def _forget(self, now: float) -> None:
        """Stages that are over, by newer ones: their counters are added up, their last reports told for a while."""
        self._closed = [(until, report) for until, report in self._closed if until > now]
        newest: Counter[Key] = Counter()
        for arm in self._mirror.stats:
            key = (arm.model, arm.version)
            newest[key] = max(newest[key], arm.stage)
        for stats in [*self._mirror.stats.values()]:
            arm = stats.arm
            key = (arm.model, arm.version)
            if arm.stage == newest[key] or stats.n_open:
                continue
            reports = self._reports(stats, now)
            self._closed += [(now + KEEP_CLOSED_S, report) for report in reports]
            for report in reports:
                self._told.pop((report.kind, report.model, report.version, report.key), None)
            _add(self._counts.setdefault(key, ShadowCounters()), stats)
            if self.closing:
                self.closing(stats)
            self._mirror.forget(arm)
        while sum(len(report.body) for _, report in self._closed) > MAX_CLOSED_BYTES:
            del self._closed[0]


def _json(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _add(counts: ShadowCounters, stats: ShadowStats) -> None:
    counts.drawn += stats.n_drawn
    for reason, count in stats.dropped.items():
        counts.dropped[reason] = counts.dropped.get(reason, 0) + count
    for tally in stats.pairs.values():
        found = tally.statistics()
        counts.compared += found["agreed"] + found["disagreed"]
        counts.disagreed += found["disagreed"]
        counts.failed += sum(found["shadow_failed"].values())
