"""The duty that watches for drift: tiles of all workers in, reports and alarms out. Decisions are in `monitoring`.

A version is watched when its folder has a profile that fits. What is remembered of it goes to the store now and then,
and tiles stay there for a day: who takes over reads the state and the tiles since, and comes to the same decisions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from gateway.errors import ConfigError
from gateway.monitoring import alarms, driftstate
from gateway.monitoring.alarms import Alarm, Event
from gateway.monitoring.baseline import Baseline, Settings
from gateway.monitoring.drift import GRACE_S, DriftState, assess
from gateway.monitoring.driftreport import DriftReport
from gateway.monitoring.profile import FILE_NAME, Profile, load_profile
from gateway.monitoring.windows import HOUR_S, MINUTE_S, MinuteTile
from gateway.observability import logs

if TYPE_CHECKING:
    from gateway.store import AlarmRecord, Report, Store, VersionRecord

EVERY_S = 2.0
ACTOR = "gateway"
SOURCE = "control"
"""As whose the reports stand in the store: whoever leads writes them."""
TILE, REPORT, STATE = "tile", "drift", "drift-state"
LIVE = ("open", "acknowledged")
OVERLAP_S = 60.0
"""Tiles are read again from that long before the last look: clocks of workers differ, and a later tile replaces."""
SAVE_EVERY_S = 600.0
LOOK_EVERY_S = 30.0
"""Within a minute: late tiles, and what operators did."""
FORGET_TILES_AFTER_S = 24 * 3600.0

Read = Callable[[bytes], Any]
"""Bytes of a tile to its counts: columns, n_requests, n_violations. ValueError for what is none."""


@dataclass(slots=True)
class _Watched:
    """One version."""

    modified: tuple[int, int]
    """Of the profile's file: time and size."""
    baseline: Baseline
    plan: str
    read: Read
    state: DriftState | None
    saved_s: float = 0.0
    seen_s: float = 0.0
    over: int = 0
    """The last minute that was over when it was looked at."""
    shown: tuple[Any, ...] = ()
    has_refused: bool = False


class DriftWatch:
    """`endpoints`: names of the webhooks that are told. `plan_of`: a profile's plan digest and reader of tiles."""

    def __init__(
        self,
        settings: Settings,
        endpoints: Sequence[str] = (),
        wall: Callable[[], float] = time.time,
        plan_of: Callable[[Profile], tuple[str, Read]] | None = None,
    ) -> None:
        self._settings, self._endpoints, self._wall = settings, tuple(endpoints), wall
        self._plan_of = plan_of or native_plan
        self._watched: dict[tuple[str, str], _Watched] = {}
        self._refused: dict[tuple[str, str], tuple[int, int]] = {}
        self._pruned_s = 0.0

    def run(self, store: Store) -> None:
        """One round over all versions."""
        now_s = self._wall()
        known = set()
        for record in store.versions():
            key = record.model, record.version
            if not record.is_retired and (watched := self._watch(store, record)):
                known.add(key)
                self._look(store, watched, now_s)
        for key in set(self._watched) - known:
            del self._watched[key]
        if now_s - self._pruned_s >= HOUR_S:
            self._pruned_s = now_s
            store.prune_reports(TILE, now_s - FORGET_TILES_AFTER_S)

    def _watch(self, store: Store, record: VersionRecord) -> _Watched | None:
        key = record.model, record.version
        path = Path(record.path) / FILE_NAME
        try:
            found = path.stat()
        except OSError:
            return None
        modified = found.st_mtime_ns, found.st_size
        watched = self._watched.get(key)
        if watched and watched.modified == modified:
            return watched
        if self._refused.get(key) == modified:
            return None
        try:
            profile = load_profile(path)
            if (profile.model, profile.version) != key:
                raise ConfigError(f"{path}: is of {profile.model} version {profile.version}")
            baseline = Baseline.of(profile, self._settings)
            plan, read = self._plan_of(profile)
        except (ConfigError, ValueError) as error:
            self._refused[key] = modified
            logs.get().warning("profile cannot be used", model=record.model, version=record.version, error=str(error))
            return None
        self._refused.pop(key, None)
        watched = self._watched[key] = _Watched(modified, baseline, plan, read, _restored(store, baseline))
        return watched

    def _look(self, store: Store, watched: _Watched, now_s: float) -> None:
        over = int(now_s - GRACE_S) // MINUTE_S
        if over == watched.over and now_s - watched.seen_s < LOOK_EVERY_S:
            return  # no minute has come to its end: what is new can wait, for a look costs milliseconds a column
        watched.over = over
        baseline, state = watched.baseline, watched.state
        model, version = baseline.model, baseline.version
        since_s = watched.seen_s - OVERLAP_S if watched.seen_s else (state.as_of_s if state else now_s) - HOUR_S
        tiles = list(self._tiles(watched, store.reports(TILE, model, version, since_s)))
        live = {record.id: record for record in store.alarms(model, version, LIVE)}
        seen = [Alarm.model_validate(record.document) for record in live.values()]
        accepted = frozenset[str]()
        if state is not None:
            ended = store.alarms(model, version, ("closed",), updated_since=state.as_of_s)
            accepted = frozenset(
                column for each in ended if each.document["accepted"] for column in _columns(each.document)
            )
        report, state = assess(baseline, tiles, state, now_s, alarms.held(seen), accepted)
        calm = dict(zip((c.name for c in baseline.judged), state.detector.calm.tolist(), strict=True))
        after, events = alarms.advance(seen, report, calm)
        for event in events:
            before = live.get(event.alarm.id)
            self._tell(store, event, before.state if before else None)
        watched.state, watched.seen_s = state, now_s
        if events:  # what the page changes is shown with it
            report, watched.state = assess(baseline, (), state, now_s, alarms.held(after))
        if events or accepted or now_s - watched.saved_s >= SAVE_EVERY_S:
            self._put(store, baseline, STATE, driftstate.to_bytes(watched.state), now_s)
            watched.saved_s = now_s
        shown = (report.judged_until, report.requests, tuple(each.id for each in after))
        if shown != watched.shown:
            self._put(store, baseline, REPORT, report.model_dump_json().encode(), now_s)
            watched.shown = shown

    def _tiles(self, watched: _Watched, reports: Iterable[Report]) -> Iterable[MinuteTile]:
        """What can be read, of this plan; the rest is complained of once."""
        for report in reports:
            try:
                start_s, stage, plan, arm = report.key.split("/", 3)
                if plan != watched.plan:
                    continue
                counts = watched.read(report.body)
                tile = MinuteTile(
                    start_s=int(start_s), source=f"{report.incarnation}/{stage}/{arm}", counts=counts.columns,
                    n_requests=counts.n_requests, n_violations=counts.n_violations,
                )  # fmt: skip
                watched.baseline.vector(tile.counts, tile.n_requests, tile.n_violations)
            except ValueError as error:
                if not watched.has_refused:
                    fields = {"model": report.model, "version": report.version, "worker": report.incarnation}
                    logs.get().error("tile cannot be read", **fields, error=str(error))
                watched.has_refused = True
                continue
            yield tile

    def _tell(self, store: Store, event: Event, expected_state: str | None) -> None:
        """To store, audit log, webhooks and log, in one transaction but for the log."""
        if record_event(
            store, event, expected_state, ACTOR, event.alarm.reason or event.alarm.sentence, self._endpoints
        ):
            alarm = event.alarm
            note = logs.get().warning if event.change in ("opened", "grown") else logs.get().info
            note(
                f"drift {event.change}", model=alarm.model, version=alarm.version, side=alarm.side, alarm=alarm.id,
                columns=",".join(alarm.columns), what=alarm.sentence,
            )  # fmt: skip

    def _put(self, store: Store, baseline: Baseline, kind: str, body: bytes, now_s: float) -> None:
        from gateway.store import Report

        store.put_reports(SOURCE, [Report(kind, baseline.model, baseline.version, "", body, now_s)])


def record_event(
    store: Store, event: Event, expected_state: str | None, actor: str, reason: str, endpoints: Iterable[str]
) -> bool:
    """False: somebody was quicker, and nothing was written."""
    from gateway.store import AlarmRecord, Delivery

    alarm = event.alarm
    record = AlarmRecord(
        alarm.id, alarm.model, alarm.version, alarm.state, alarm.opened, alarm.updated, alarm.model_dump(mode="json")
    )
    body = orjson.dumps(alarms.cloud_event(event, f"/v1/drift/{alarm.model}/{alarm.version}"))
    deliveries = [Delivery(event.id, name, "waiting", 0, event.at, event.at, "", body) for name in endpoints]
    return store.put_alarm(record, expected_state, f"drift.{event.change}", actor, reason, deliveries)


def alarm_of(record: AlarmRecord) -> Alarm:
    """The alarm as it was written."""
    return Alarm.model_validate(record.document)


def reports(store: Store, model: str | None = None, version: str | None = None) -> list[DriftReport]:
    """The last report of each version; one that another gateway wrote is left out."""
    found = []
    for report in store.reports(REPORT, model, version):
        try:
            found.append(DriftReport.model_validate_json(report.body))
        except ValueError:
            continue
    return found


def native_plan(profile: Profile) -> tuple[str, Read]:
    """How the workers count, and how their tiles are read."""
    from gateway.monitoring import plan as plans
    from gateway.monitoring import tile

    plan = plans.plan_of(profile)
    return plan.digest.hex(), lambda blob: tile.decode(plan, blob)


def _restored(store: Store, baseline: Baseline) -> DriftState | None:
    for report in store.reports(STATE, baseline.model, baseline.version):
        try:
            return driftstate.from_bytes(report.body, baseline)
        except ValueError as error:
            fields = {"model": baseline.model, "version": baseline.version, "reason": str(error)}
            logs.get().info("drift is learnt anew", **fields)
    return None


def _columns(document: dict[str, Any]) -> Iterable[str]:
    return (finding["column"] for finding in document["findings"])
