"""What this worker counts for a rollout, told a few times a second while somebody is compared; and its own reflex.

A report is of one generation of a model's route: a line of JSON, then the counters of `Scales.to_bytes`, cumulative. A
candidate that harms everybody it answers is taken out of this worker's split at once, whether or not anybody decides
elsewhere: weight only ever goes down here, until a newer generation of the route comes. Affinity: owning loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from gateway.native.lane import Lane
from gateway.native.scales import Scales
from gateway.native.shadow import Mirror, ShadowStats
from gateway.observability import logs
from gateway.rollout import onsight, room
from gateway.serving.routing import Routing

if TYPE_CHECKING:
    from gateway.store.records import Report

KIND, COST_KIND = "evidence", "cost"
EVERY_S = 0.2
COSTS_EVERY_S = 10.0
IDLE_S = 2.0
"""With nobody compared; a new route is seen before that, since the agent looks when it has applied one."""
ALIVE_S = 1.0
"""Told again after that though nothing has changed: silence must mean that there is no worker."""
KEEP_S = 60.0
"""For so long the last of a generation is told, lest the store was away just then."""
REFLEX_S = 0.1
ALPHA = 0.0001
"""Of a worker's wrong reflex in one generation, each rule."""

Key = tuple[str, int]
"""Model and generation."""


@dataclass(slots=True)
class _Told:
    body: bytes = b""
    at_s: float = 0.0
    until_s: float | None = None
    """When a generation that is over is forgotten."""


@dataclass(slots=True)
class Evidence:
    """One per worker. `read` is a source for the agent, `every_s` says how often."""

    routing: Routing
    mirror: Mirror
    lanes: Callable[[], Mapping[tuple[str, str], Lane]] = dict
    wall: Callable[[], float] = time.time
    clock: Callable[[], float] = time.monotonic
    _told: dict[Key, _Told] = field(default_factory=dict)
    _pairs: dict[Key, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Of shadows whose stage is forgotten elsewhere, by version."""
    _reasons: dict[Key, str] = field(default_factory=dict)
    _costs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _rooms: dict[tuple[str, str], bytes] = field(default_factory=dict)
    _timer: asyncio.TimerHandle | None = None
    _is_busy: bool = False

    def every_s(self) -> float:
        """Any thread."""
        return EVERY_S if self._is_busy else IDLE_S

    def _in_force(self) -> dict[str, int]:
        """Generations of the routes under which somebody is compared, by model."""
        return {
            model: given.generation
            for model, given in self.routing.routes.items()
            if given.route.is_compared or model in self.routing.lowered
        }

    # --- reports

    def read(self) -> list[Report]:
        """Of all generations that are in force or were so lately, those that have something new to say."""
        from gateway.store.records import Report  # the agent has imported it; a worker without one need not have it

        now_s, now_us = self.clock(), int(self.clock() * 1e6)
        in_force = self._in_force()
        scales = {(each.model, each.generation): each for each in self.routing.arms.weighed()}
        shadows = self._shadows()
        reports = []
        for key in {*in_force.items(), *scales, *(key for key in shadows if key in self._told)}:
            told = self._told.setdefault(key, _Told())
            weighed = scales.get(key)
            body = self._body(key, weighed, shadows.get(key, {}), now_us)
            if body != told.body or now_s - told.at_s >= ALIVE_S:
                told.body, told.at_s = body, now_s
                reports.append(Report(KIND, key[0], "", str(key[1]), body, self.wall()))
        self._forget(in_force, scales, now_s)
        self._is_busy = bool(self._told)
        return reports

    def read_costs(self) -> list[Report]:
        """Of every version, what a row's execution takes: a rollout freezes its stable version's before the start. And
        what its executors could get through.
        """
        from gateway.store.records import Report

        reports = []
        for key, lane in self.lanes().items():
            body = orjson.dumps(lane.costs)
            if lane.costs[0] and self._costs.get(key) != body:
                self._costs[key] = body
                reports.append(Report(COST_KIND, *key, "", body, self.wall()))
            body = room_of(lane).body() if lane.predicted_us(1) else b""
            if body and self._rooms.get(key) != body:
                self._rooms[key] = body
                reports.append(Report(room.KIND, *key, "", body, self.wall()))
        return reports

    def _body(self, key: Key, scales: Scales | None, shadows: dict[str, dict[str, Any]], now_us: int) -> bytes:
        head: dict[str, Any] = {"generation": key[1]}
        counts = b""
        if scales:
            counts = scales.to_bytes(now_us)
            head |= {
                "versions": scales.versions,
                "shares": scales.shares,
                "is_sticky": scales.is_sticky,
                "columns": scales.names,
                "open": scales.open,
                "facts": scales.facts(now_us),
            }
        if shadows:
            head["shadows"] = shadows
        if reason := self._reasons.get(key):
            head["lowered"] = reason
        return orjson.dumps(head) + b"\n" + counts

    def _shadows(self) -> dict[Key, dict[str, dict[str, Any]]]:
        found = {key: dict(versions) for key, versions in self._pairs.items()}
        for stats in self.mirror.stats.values():
            versions = found.setdefault((stats.arm.model, stats.arm.stage), {})
            versions[stats.arm.version] = outcome_of(stats)
        return found

    def closing(self, stats: ShadowStats) -> None:
        """The counters of a shadow's stage are about to be forgotten where they were counted."""
        key = stats.arm.model, stats.arm.stage
        if key in self._told:
            self._pairs.setdefault(key, {})[stats.arm.version] = outcome_of(stats)

    def _forget(self, in_force: dict[str, int], scales: dict[Key, Scales], now_s: float) -> None:
        for key, told in [*self._told.items()]:
            weighed = scales.get(key)
            if in_force.get(key[0]) == key[1] or (weighed and (any(weighed.open) or weighed.n_unsealed)):
                told.until_s = None
            elif told.until_s is None:
                told.until_s = now_s + KEEP_S
            elif now_s >= told.until_s:
                del self._told[key]
                self._pairs.pop(key, None)
                self._reasons.pop(key, None)
                if weighed:
                    self.routing.arms.forget(weighed)

    # --- reflex

    def start(self) -> None:
        self.routing.on_swap = self._on_swap
        self._on_swap()

    def close(self) -> None:
        self.routing.on_swap = None
        if self._timer:
            self._timer.cancel()

    def _on_swap(self) -> None:
        if self._in_force():
            self._is_busy = True
            if not self._timer:
                self._timer = asyncio.get_running_loop().call_later(REFLEX_S, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        try:
            self.react(int(self.clock() * 1e6))
        except Exception as error:
            logs.get().exception("reflex failed", error=str(error))
        self._on_swap()

    def react(self, now_us: int) -> None:
        """Take weight from each candidate that harms everybody."""
        in_force = self.routing.generations
        for scales in self.routing.arms.weighed():
            key = scales.model, scales.generation
            if in_force.get(scales.model) != scales.generation or key in self._reasons:
                continue
            facts = scales.facts(now_us)
            reason = blamed(facts["stable"], facts["candidate"])
            if reason and self.routing.lower(scales.model, reason):
                self._reasons[key] = reason


def blamed(stable: dict[str, int], candidate: dict[str, int]) -> str:
    """Why the candidate should answer nobody here, by what this worker saw; empty when it may go on."""
    n, n_stable = candidate["n"], stable["n"]
    if onsight.is_breaking(candidate["broken"], n, stable["broken"], n_stable, ALPHA):
        return f"broken answers to {candidate['broken']} of {n} requests, stable to none"
    if onsight.is_failing(candidate["run"], n, stable["run"], stable["failed"], n_stable, ALPHA):
        return f"{candidate['run']} failures in a row, {candidate['failed']} of {n} in all"
    if onsight.is_constant(candidate["same"], stable["same"]):
        return f"{candidate['same']} different requests got the same answer, with stable {stable['same']} at most"
    return ""


def room_of(lane: Lane) -> room.Room:
    counted = lane.statistics()
    rows = min(max(lane.max_batch_size, 1), room.MOST_ROWS)
    n_requests = counted["requests"].get(0, 0)
    return room.Room(lane.instances, rows, lane.predicted_us(rows), n_requests, max(counted["rows"], n_requests))


def outcome_of(stats: ShadowStats) -> dict[str, Any]:
    """Pairs of one shadow in one stage, over all arms of the primary; `late` are those that ran and came too late."""
    total: dict[str, Any] = {"answered": 0, "failed": 0, "other": 0, "relative": [], "broken": 0}
    for tally in stats.pairs.values():
        found = tally.outcome()
        for name in ("answered", "failed", "other", "broken"):
            total[name] += found[name]
        before = total["relative"] or [0] * len(found["relative"])
        total["relative"] = [a + b for a, b in zip(before, found["relative"], strict=True)]
    total["late"] = stats.dropped.get("late_running", 0)
    return total
