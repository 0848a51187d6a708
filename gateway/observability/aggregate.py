"""Adds up what workers report. Counters never go backwards: what a worker counted before it died stays in the sum.

A worker's life is an Incarnation: its last snapshot counts as long as it lives, and is added to the base when it ends.
Lost at a sudden death is what happened since the last report. Affinity: one thread; `totals` shares nothing with what
comes later, so that it may be read in another.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from gateway.observability import logs
from gateway.observability.snapshot import HubCounters, HubNow, LaneCounters, Snapshot, StoreNow, added, decode

MAX_VERSIONS = 1000
"""With metrics of their own: each costs some 150 series. Versions that come later share one, named OTHER."""

OTHER = "_other"

Key = tuple[str, str]
"""Model and version."""


@dataclass(slots=True)
class Queue:
    """Over all workers, at this moment."""

    queued: int = 0
    running: int = 0


@dataclass(slots=True)
class WorkerStatus:
    worker: int
    is_up: bool
    restarts: int
    report_age_s: float | None
    """Since its last snapshot; None before the first."""
    resident_bytes: int
    store: StoreNow | None = None


@dataclass(slots=True)
class Totals:
    """What /metrics shows, at one moment."""

    hub: HubCounters
    now: HubNow
    lanes: dict[Key, LaneCounters]
    queues: dict[Key, Queue]
    states: dict[Key, dict[str, int]]
    """In how many workers a version is in each state."""
    circuits: dict[Key, dict[str, int]]
    """In how many workers a version's circuit is in each state; versions without one are not there."""
    load_s: dict[Key, float]
    """The slowest worker's."""
    workers: list[WorkerStatus]
    endpoints: dict[Key, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By address of a server that runs the version elsewhere: in how many workers it is in each state."""


class Incarnation:
    """One life of one worker."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.snapshot: Snapshot | None = None
        self.reported_at_s = 0.0
        self.is_ready = False

    def report(self, snapshot: Snapshot) -> None:
        """The worker's latest word."""
        self.snapshot, self.reported_at_s = snapshot, self._clock()

    def on_line(self, line: bytes) -> None:
        """A snapshot as it comes from the worker."""
        try:
            self.report(decode(line))
        except ValueError as error:
            logs.get().warning("telemetry ignored", error=str(error), got=repr(line[:80]))

    def ready(self) -> None:
        """It loaded what it could and serves."""
        self.is_ready = True

    def age_s(self) -> float | None:
        return None if self.snapshot is None else self._clock() - self.reported_at_s


@dataclass(slots=True)
class _Place:
    """One of the N workers over its lives."""

    current: Incarnation | None = None
    n_lives: int = 0


@dataclass(slots=True)
class _Base:
    """What the dead counted."""

    hub: HubCounters = field(default_factory=HubCounters)
    lanes: dict[Key, LaneCounters] = field(default_factory=dict)


class Aggregate:
    """Over the N workers of one supervisor."""

    def __init__(self, n_workers: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._places = [_Place() for _ in range(n_workers)]
        self._base = _Base()
        self._named: set[Key] = set()

    def begin(self, worker: int) -> Incarnation:
        """A worker process is started in place `worker`; an earlier one there is over."""
        self.end(worker)
        place = self._places[worker]
        place.current = Incarnation(self._clock)
        place.n_lives += 1
        return place.current

    def end(self, worker: int) -> None:
        """It is gone, however it went; what its Incarnation still hears does not count."""
        place = self._places[worker]
        current, place.current = place.current, None
        if current and (last := current.snapshot):
            self._base.hub = added(self._base.hub, last.hub)
            self._base.lanes = self._lanes([last], self._base.lanes)

    def totals(self) -> Totals:
        living = [place.current.snapshot for place in self._places if place.current and place.current.snapshot]
        hub, now = self._base.hub, HubNow()
        queues: dict[Key, Queue] = {}
        states: dict[Key, dict[str, int]] = {}
        circuits: dict[Key, dict[str, int]] = {}
        load_s: dict[Key, float] = {}
        endpoints: dict[Key, dict[str, dict[str, int]]] = {}
        for snapshot in living:
            hub, now = added(hub, snapshot.hub), added(now, snapshot.now)
            for lane in snapshot.lanes:
                key = self._name(lane.model, lane.version)
                queues[key] = added(queues.get(key, Queue()), Queue(lane.queued, lane.running))
                if lane.endpoints:
                    endpoints[key] = added(endpoints.get(key, {}), lane.endpoints)
                if lane.circuit:
                    circuits[key] = added(circuits.get(key, {}), {lane.circuit: 1})
            for version in snapshot.versions:
                key = self._name(version.model, version.version)
                counts = states.setdefault(key, {})
                counts[version.state] = counts.get(version.state, 0) + 1
                if version.load_s is not None:
                    load_s[key] = max(load_s.get(key, 0.0), version.load_s)
        lanes = self._lanes(living, self._base.lanes)
        workers = [self._status(index) for index in self._indexes()]
        return Totals(hub, now, lanes, queues, states, circuits, load_s, workers, endpoints)

    def _indexes(self) -> range:
        return range(len(self._places))

    def _status(self, index: int) -> WorkerStatus:
        place = self._places[index]
        current = place.current
        resident_bytes = current.snapshot.now.resident_bytes if current and current.snapshot else 0
        return WorkerStatus(
            worker=index,
            is_up=bool(current and current.is_ready),
            restarts=max(0, place.n_lives - 1),
            report_age_s=current.age_s() if current else None,
            resident_bytes=resident_bytes,
            store=current.snapshot.store if current and current.snapshot else None,
        )

    def _lanes(self, snapshots: Iterable[Snapshot], base: dict[Key, LaneCounters]) -> dict[Key, LaneCounters]:
        lanes = dict(base)
        for snapshot in snapshots:
            for lane in snapshot.lanes:
                key = self._name(lane.model, lane.version)
                lanes[key] = added(lanes.get(key, LaneCounters()), lane.counters)
        return lanes

    def _name(self, model: str, version: str) -> Key:
        """Itself, or OTHER for good once there are too many: a series that changed its name would go backwards."""
        key = (model, version)
        if key in self._named:
            return key
        if len(self._named) < MAX_VERSIONS:
            self._named.add(key)
            return key
        return OTHER, OTHER
