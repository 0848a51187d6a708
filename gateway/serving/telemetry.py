"""What a worker reports of itself: about once a second, and when it has drained, a snapshot of hub, lanes and catalog.

Reads counters that the native side keeps; never waits for the supervisor. Affinity: owning loop.
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.errors import Code
from gateway.native.connection import Hub
from gateway.native.lane import Lane
from gateway.observability import logs, snapshot
from gateway.observability.feed import LineSender
from gateway.observability.snapshot import (
    ArmCounters,
    EndpointCounters,
    LaneCounters,
    added,
    duration_histogram,
    rows_histogram,
)
from gateway.routing.armbook import ArmBook
from gateway.routing.route import RESERVED_ARMS
from gateway.serving.agent import Agent
from gateway.serving.catalog import Catalog, ServedVersion
from gateway.serving.shadows import Shadows

if TYPE_CHECKING:
    from gateway.backends.triton.remote import Remote

EVERY_S = 1.0
LAST_WORD_PATIENCE_S = 0.2
LANES_PER_TURN = 16
"""Then requests get their turn: reading one lane takes some 20 us."""

Key = tuple[str, str]

_NOT_ADMITTED = {
    "INVALID_ARGUMENT": "malformed",
    "NOT_FOUND": "unknown_model",
    "UNAVAILABLE": "not_ready",
    "RESOURCE_EXHAUSTED": "in_flight_bytes",
    "INTERNAL": "internal",
}
"""Why a request is turned away before it has a version, by the code it is answered with."""


class Telemetry:
    """One per worker; `fd` is the write end of a pipe to the supervisor. `lanes` gives what is loaded now."""

    def __init__(
        self,
        fd: int,
        hub: Hub,
        lanes: Callable[[], Mapping[Key, Lane]],
        catalog: Catalog,
        arms: ArmBook,
        agent: Agent | None = None,
        shadows: Shadows | None = None,
        remotes: Callable[[], Mapping[Key, Remote]] = dict,
    ) -> None:
        self._remotes = remotes
        self._agent = agent
        self._sender = LineSender(fd)
        self._hub, self._catalog, self._arms, self._shadows = hub, catalog, arms, shadows
        self._ledger = Ledger(lanes)
        self._load_s: dict[ServedVersion, float] = {}
        self._task = asyncio.get_running_loop().create_task(self._run())

    def settled(self, entry: ServedVersion, seconds: float) -> None:
        """It took so long to load."""
        self._load_s[entry] = seconds

    async def close(self) -> None:
        """One last snapshot, if the supervisor takes it."""
        self._task.cancel()
        await asyncio.wait({self._task})
        if self._sender.is_clear:
            self._sender.send(snapshot.encode(await self._snapshot()))
        await self._sender.close(LAST_WORD_PATIENCE_S)

    async def _run(self) -> None:
        while True:
            try:
                if self._sender.is_clear:
                    self._sender.send(snapshot.encode(await self._snapshot()))
                else:
                    self._sender.n_dropped += 1
            except Exception:  # no reason to stop serving, or reporting
                logs.get().exception("telemetry failed")
            await asyncio.sleep(EVERY_S)

    async def _snapshot(self) -> snapshot.Snapshot:
        lanes = await self._ledger.read()
        add_arms(lanes, self._arms)
        if self._shadows:
            self._shadows.add_to(lanes)
        add_endpoints(lanes, self._remotes())
        refused = {Code(code).name: count for code, count in self._hub.refused.items()}
        refusals = {_NOT_ADMITTED.get(code, code.lower()): count for code, count in refused.items()}
        refusals = added(refusals, self._hub.door.reasons)
        refused = added(refused, {Code(code).name: count for code, count in self._hub.door.codes.items()})
        if self._hub.n_rejected:
            refusals["max_connections"] = self._hub.n_rejected
        usage = resource.getrusage(resource.RUSAGE_SELF)
        hub = snapshot.HubCounters(
            received_bytes=self._hub.bytes_in,
            sent_bytes=self._hub.bytes_out,
            connections=self._hub.n_accepted,
            requests=refused,
            refusals=refusals,
            unkeyed={tally.model: tally.unkeyed for tally in self._arms.tallies() if tally.unkeyed},
            cpu_us=int((usage.ru_utime + usage.ru_stime) * 1e6),
            snapshots_dropped=self._sender.n_dropped,
        )
        now = snapshot.HubNow(
            connections={"grpc": len(self._hub.connections), "rest": len(self._hub.http1_connections)},
            open_calls=self._hub.n_open_calls,
            in_flight_bytes=self._hub.budget.used,
            in_flight_limit_bytes=self._hub.budget.limit,
            resident_bytes=_resident_bytes(),
        )
        versions = [
            snapshot.VersionState(entry.model, entry.version, entry.state.value, self._load_s.get(entry))
            for model in self._catalog.models()
            for entry in self._catalog.versions(model)
        ]
        agent = self._agent.now if self._agent else None
        store = snapshot.StoreNow(agent.is_store_up, agent.revision) if agent else None
        return snapshot.Snapshot(hub, now, lanes, versions, store)


class Ledger:
    """Counters by version over the lanes it had: one that is loaded again begins at zero, its counters do not."""

    def __init__(self, lanes: Callable[[], Mapping[Key, Lane]]) -> None:
        self._lanes = lanes
        self._held: dict[Key, list[Lane]] = {}
        self._closed: dict[Key, LaneCounters] = {}

    async def read(self) -> list[snapshot.Lane]:
        """One entry for each version that ever had a lane. Lets the loop run in between."""
        loaded = dict(self._lanes())
        for key, lane in loaded.items():
            held = self._held.setdefault(key, [])
            if lane not in held:
                held.append(lane)
        read = []
        for number, key in enumerate([*self._held]):
            if number % LANES_PER_TURN == LANES_PER_TURN - 1:
                await asyncio.sleep(0)
            read.append(self._entry(key, loaded.get(key)))
        return read

    def _entry(self, key: Key, loaded: Lane | None) -> snapshot.Lane:
        entry = snapshot.Lane(*key, self._closed.get(key, LaneCounters()))
        for lane in [*self._held[key]]:
            statistics = lane.statistics()
            counters = counters_of(statistics)
            entry.counters = added(entry.counters, counters)
            entry.queued += statistics["queued"]
            entry.running += statistics["running"]
            if lane is loaded and statistics.get("circuit"):
                entry.circuit = statistics["circuit"]["state"]
            if lane is not loaded and lane.is_idle:  # unloaded, and its last request is answered: it counts no more
                self._held[key].remove(lane)
                self._closed[key] = added(self._closed.get(key, LaneCounters()), counters)
        return entry


def add_arms(lanes: list[snapshot.Lane], arms: ArmBook) -> None:
    """To each version what its arms have counted; the gateway's own arms only once something fell on them."""
    by_key = {(lane.model, lane.version): lane for lane in lanes}
    for arm in arms.totals():
        statistics = arm.statistics()
        if arm.name in RESERVED_ARMS and not statistics["requests"] and not statistics["cancelled"]:
            continue
        lane = by_key.get((arm.model, arm.version))
        if lane is None:
            lane = by_key[arm.model, arm.version] = snapshot.Lane(arm.model, arm.version, LaneCounters())
            lanes.append(lane)
        times = statistics["request_us"]
        lane.counters.arms[arm.name] = ArmCounters(
            requests={Code(code).name: count for code, count in statistics["requests"].items()},
            cancelled=statistics["cancelled"],
            request_time={name: duration_histogram(counted) for name, counted in times.items()},
        )


def add_endpoints(lanes: list[snapshot.Lane], remotes: Mapping[Key, Remote]) -> None:
    """To each version that runs elsewhere, its servers."""
    for lane in lanes:
        remote = remotes.get((lane.model, lane.version))
        for endpoint in remote.fleet.endpoints if remote else ():
            counts = endpoint.counts
            lane.counters.endpoints[endpoint.address] = EndpointCounters(
                attempts={outcome.value: count for outcome, count in counts.outcomes.items()},
                repeated=counts.again,
                ejections=counts.ejections,
                ways=dict(counts.ways),
            )
            lane.endpoints[endpoint.address] = {endpoint.state.value: 1}


def counters_of(statistics: Mapping[str, Any]) -> LaneCounters:
    """Of Lane.statistics()."""
    durations = statistics.get("histograms", {})
    return LaneCounters(
        requests={Code(code).name: count for code, count in statistics["requests"].items()},
        cancelled=statistics["cancelled"],
        refusals={
            "queue_rows": statistics["refused_rows"],
            "queue_bytes": statistics["refused_bytes"],
            "late": statistics.get("refused_late", 0),
            "circuit": statistics.get("refused_circuit", 0),
        },
        circuit_opened=statistics.get("circuit_opened", 0),
        rescued=statistics.get("rescued", {}),
        rescues_refused=statistics.get("rescues_refused", 0),
        rows=statistics["rows"],
        batches=statistics["batches"],
        inline_batches=statistics["inline_batches"],
        releases=statistics["releases"],
        success_us=statistics.get("success_us", 0),
        queue_us=statistics["queue_us"],
        compute_us=statistics.get("compute_us", 0),
        request_time={name: duration_histogram(counted) for name, counted in durations.get("request_us", {}).items()},
        queue_time=duration_histogram(durations["queue_us"]) if "queue_us" in durations else None,
        run_time=duration_histogram(durations["run_us"]) if "run_us" in durations else None,
        batch_rows=rows_histogram(statistics["batch_sizes"]) if "batch_sizes" in statistics else None,
    )


def _resident_bytes() -> int:
    """0 where the kernel does not say."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
