"""What watches each version's values: a monitor at load, and its tiles as reports for the agent.

A version with profile.json in its folder is counted against it. One without, or with a bad one, is still served and
watched as far as that goes without a baseline: answers, latency, and what is odd in outputs by itself. Affinity: owning
loop, except for `Watch.of`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.backends.base import Signature
from gateway.errors import ConfigError, LoadError
from gateway.monitoring import plan as plans
from gateway.monitoring.profile import FILE_NAME, load_profile
from gateway.monitoring.tilekey import TileKey
from gateway.native import signature as native_signature
from gateway.native.lane import Lane
from gateway.native.monitor import Monitor
from gateway.native.tileplan import TilePlan
from gateway.observability import logs
from gateway.registry.digest import digest_folder

if TYPE_CHECKING:
    from gateway.store.records import Report

EVERY_S = 5.0
PLAN_EVERY_S = 600.0
"""The plan of the tiles is told anew now and then, lest it be pruned as old."""

KIND, PLAN_KIND = "tile", "plan"


@dataclass(frozen=True, slots=True)
class Watch:
    """How one version is watched: against what, and why not against its profile."""

    plan: TilePlan
    signature: Signature
    has_profile: bool
    fault: str = ""
    """What is wrong with the profile that lies there; empty: nothing, or none lies there."""

    @classmethod
    def of(cls, folder: Path, signature: Signature, model: str, version: str, digest: str = "") -> Watch:
        """Of the version in `folder`; any thread. Never fails: a bad profile is no reason not to serve."""
        if not (folder / FILE_NAME).exists():
            return cls(plans.plain_plan(signature), signature, False)
        try:
            profile = load_profile(folder)
            profile.check(signature, model, version, digest or digest_folder(folder))
            plan = plans.plan_of(profile)
            Monitor(plan, native_signature.Signature(model, version, *_tensors(signature), signature.batched))
            return cls(plan, signature, True)
        except (ConfigError, LoadError, OSError, ValueError) as error:
            return cls(plans.plain_plan(signature), signature, False, str(error))

    def counts_as(self, other: Watch) -> bool:
        """Whether the same cells are counted of the same tensors."""
        return self.plan.digest == other.plan.digest and self.signature == other.signature


@dataclass(slots=True)
class _Watched:
    model: str
    version: str
    watch: Watch
    monitor: Monitor
    lanes: list[Lane]
    plan_due_s: float = 0.0


@dataclass(slots=True)
class Monitors:
    """One per worker. `read` is a source for the agent."""

    wall: Callable[[], float] = time.time
    _watched: list[_Watched] = field(default_factory=list)
    _over: list[Report] = field(default_factory=list)
    """Tiles of minutes that were over at the last read: told once more, for the store may just have gone away."""

    def attach(self, model: str, version: str, lane: Lane, watch: Watch) -> None:
        """Have the lane's batches counted. Lanes of equal plans share a monitor: a version that is loaded again goes on
        with its minute.
        """
        if watch.fault:
            fields = {"model": model, "version": version, "reason": watch.fault}
            logs.get().warning("profile cannot be used, the version serves without drift monitoring", **fields)
        for watched in self._watched:
            if (watched.model, watched.version) == (model, version) and watched.watch.counts_as(watch):
                watched.watch = watch
                watched.lanes.append(lane)
                lane.monitor = watched.monitor
                return
        monitor = Monitor(watch.plan, lane.signature)
        monitor.cut(self.wall())  # tells it the wall clock
        lane.monitor = monitor
        self._watched.append(_Watched(model, version, watch, monitor, [lane]))

    def read(self) -> list[Report]:
        """All tiles that have changed since the last time."""
        from gateway.store.records import Report  # the agent has imported it; a worker without one need not have it

        now_s = self.wall()
        reports, self._over = self._over, []
        for watched in tuple(self._watched):
            digest = watched.watch.plan.digest.hex()
            for arm, stage, start_s, body in watched.monitor.cut(now_s):
                key = TileKey(start_s, stage, digest, arm)
                report = Report(KIND, watched.model, watched.version, str(key), body, now_s)
                reports.append(report)
                if start_s + 60 <= now_s:
                    self._over.append(report)
            if now_s >= watched.plan_due_s:
                watched.plan_due_s = now_s + PLAN_EVERY_S
                reports.append(
                    Report(PLAN_KIND, watched.model, watched.version, digest, _document(watched.watch), now_s)
                )
            watched.lanes = [lane for lane in watched.lanes if not (lane.is_closed and lane.is_idle)]
            if not watched.lanes:
                self._watched.remove(watched)
        return reports

    def state(self) -> Mapping[tuple[str, str], Watch]:
        """By model and version, how it is watched; the lane loaded last counts."""
        return {(watched.model, watched.version): watched.watch for watched in self._watched}


def _document(watch: Watch) -> bytes:
    """The plan's, with whether it is a profile's and what is wrong with that."""
    content: dict[str, Any] = json.loads(plans.to_document(watch.plan))
    return json.dumps(content | {"has_profile": watch.has_profile, "fault": watch.fault}).encode()


def _tensors(signature: Signature) -> tuple[list[Any], list[Any]]:
    sides = (signature.inputs, signature.outputs)
    inputs, outputs = ([(spec.name, spec.datatype, spec.shape) for spec in side] for side in sides)
    return inputs, outputs
