"""What one look at a rollout reads: workers, route, evidence, trial, baseline. Whatever cannot be read is said in the
snapshot and not raised, so that an operator's word and a rollback never wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import TypeAdapter

from gateway.control import acceptance, evidence, evidencebaseline, feedback, fleet, rolloutroute
from gateway.control.evidence import Collected, Stretch, Watched
from gateway.control.rolloutorders import orders_of
from gateway.errors import GatewayError
from gateway.observability import logs
from gateway.rollout import capacity
from gateway.rollout.baseline import Baseline, LatencyBaseline
from gateway.rollout.capacity import Capacity
from gateway.rollout.cursor import Cursor
from gateway.rollout.guardrail import Cost, Latency
from gateway.rollout.phase import Stage, is_judged
from gateway.rollout.plan import Plan
from gateway.rollout.room import KIND as ROOM_KIND
from gateway.rollout.room import Room
from gateway.rollout.snapshot import Now, Snapshot, Trial, Worker
from gateway.routing.route import SHARE_UNIT, RouteError, parse

if TYPE_CHECKING:
    from gateway.store import RouteRecord, Store, WorkerRecord
    from gateway.store.rolloutrecords import RolloutRecord

BASELINE = TypeAdapter(Baseline)
COST_PATIENCE_S = 30.0
"""For stable's cost, where a guardrail asks for it: workers tell costs every ten seconds."""
UNUSED_EPOCH = 1_000_000
"""A rollout that only watches sees generations that are nobody's epoch; each gets a number from here on."""


class Senses(Protocol):
    """What the evidence, the trial and the baseline are read with; `Real` in a gateway."""

    def collect(self, store: Store, live: Sequence[WorkerRecord], watched: Watched, now_s: float) -> Collected: ...

    def baseline(
        self, store: Store, live: Sequence[WorkerRecord], model: str, stable: str, plan: Plan, now_s: float
    ) -> Baseline: ...

    def trial(self, store: Store, live: Sequence[WorkerRecord], attempt: Attempt) -> Trial: ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """What the trial must know."""

    id: str
    plan: Plan
    stable: str


class Real:
    """The parts that count in a running gateway."""

    def collect(self, store: Store, live: Sequence[WorkerRecord], watched: Watched, now_s: float) -> Collected:
        return evidence.collect(store, live, watched, now_s, (feedback.evidence,))

    def baseline(
        self, store: Store, live: Sequence[WorkerRecord], model: str, stable: str, plan: Plan, now_s: float
    ) -> Baseline:
        return evidence.baseline(store, live, model, stable, plan, now_s)

    def trial(self, store: Store, live: Sequence[WorkerRecord], attempt: Attempt) -> Trial:
        return acceptance.trial(store, live, attempt)


@dataclass(frozen=True, slots=True)
class Sight:
    """A look's inputs: the snapshot, and what applying the decision needs beside it."""

    snapshot: Snapshot
    route: RouteRecord | None  # in force
    new_baseline: Baseline | None = None  # measured at this look, to be frozen with the first traffic
    harmed: int = 0


@dataclass(slots=True)
class Looker:
    """One per control process."""

    senses: Senses = field(default_factory=Real)
    _told: dict[str, str] = field(default_factory=dict)

    def look(
        self,
        store: Store,
        record: RolloutRecord,
        plan: Plan,
        cursor: Cursor,
        live: Sequence[WorkerRecord],
        route: RouteRecord | None,
        now: Now,
    ) -> Sight:
        """StoreUnavailable only where the workers and the route cannot be read either."""
        acts = plan.mode == "act"
        stretches = stages_of(record, plan, cursor, route)
        load_fault, trial, baseline, new = "", Trial(True), Baseline(), None
        if record.baseline is not None:
            baseline = BASELINE.validate_python(record.baseline)
        if cursor.stage in (Stage.LOADING, Stage.WARMING):
            load_fault = self._load_fault(record, plan, live, route) if acts else ""
            if cursor.stage is Stage.WARMING and acts:
                trial = self._trial(store, live, record, plan)
            if cursor.stage is Stage.WARMING and trial.passed and not load_fault:
                new = self._baseline(store, live, record, plan, now)
                baseline = new or baseline
                trial = _when_known(trial, plan, baseline, cursor, now)
        collected = Collected(age_s=0.0)
        if is_judged(cursor.stage) or cursor.stage in (Stage.ROLLING_BACK, Stage.NEEDS_OPERATOR):
            watched = Watched(
                record.model, record.stable, record.candidate, stretches, plan, baseline, record.created_at
            )
            collected = self._collected(store, live, watched, record, now)
        room = None
        if acts and (is_judged(cursor.stage) or cursor.stage is Stage.WARMING):
            rate = _requests_per_s(cursor, collected, baseline, record, now)
            room = self._capacity(store, live, record, plan, rate)
        return Sight(
            Snapshot(
                cursor=cursor,
                now=now,
                workers=workers_of(record, plan, cursor, live, route, collected.lowered),
                evidence=collected.evidence,
                evidence_age_s=collected.age_s,
                evidence_fault=collected.fault,
                facts=collected.facts,
                baseline=baseline,
                latency=_latency_now(baseline, collected) if acts else None,
                trial=trial,
                load_fault=load_fault,
                orders=orders_of(record),
                capacity_units=room.units if room else None,
                capacity_seen=room.seen if room else "",
                in_flight=collected.in_flight if acts else 0,
                route_fault=route_fault(record, route) if acts else "",
            ),
            route,
            new,
            collected.facts.failed_candidate,  # a broken answer has failed
        )

    def _load_fault(
        self, record: RolloutRecord, plan: Plan, live: Sequence[WorkerRecord], route: RouteRecord | None
    ) -> str:
        heard = [each for each in live if each.revision >= record.revision]
        failed, _ = fleet.unready(heard, record.model, record.candidate)
        if failed:
            return "; ".join(f"worker {each.worker}: {each.reason}" for each in failed)
        try:
            found = rolloutroute.faults(parse(route.document), record.stable, record.candidate) if route else []
        except RouteError as error:
            return f"the route in force cannot be read: {error}"
        if route is None:
            return f"model {record.model} has no route"
        return "; ".join(f"the route has changed, {field}: {text}" for field, text in found)

    def _baseline(
        self, store: Store, live: Sequence[WorkerRecord], record: RolloutRecord, plan: Plan, now: Now
    ) -> Baseline | None:
        try:
            return self.senses.baseline(store, live, record.model, record.stable, plan, now.wall_s)
        except Exception as error:
            self._tell(record, "baseline", error)
            return None

    def _trial(self, store: Store, live: Sequence[WorkerRecord], record: RolloutRecord, plan: Plan) -> Trial:
        try:
            return self.senses.trial(store, live, Attempt(record.id, plan, record.stable))
        except Exception as error:
            self._tell(record, "trial", error)
            return Trial(None)

    def _collected(
        self, store: Store, live: Sequence[WorkerRecord], watched: Watched, record: RolloutRecord, now: Now
    ) -> Collected:
        try:
            return self.senses.collect(store, live, watched, now.wall_s)
        except Exception as error:  # whatever it is: a candidate can still be taken back by an operator
            self._tell(record, "evidence", error)
            return Collected(age_s=None, fault=f"it cannot be read: {error or type(error).__name__}")

    def _capacity(
        self, store: Store, live: Sequence[WorkerRecord], record: RolloutRecord, plan: Plan, requests_per_s: float
    ) -> Capacity | None:
        if plan.capacity is None:
            return None
        here = {worker.incarnation for worker in live}
        try:
            found = [
                [
                    Room.from_body(each.body)
                    for each in store.reports(ROOM_KIND, record.model, version)
                    if each.incarnation in here
                ]
                for version in (record.candidate, record.stable)
            ]
        except Exception as error:
            self._tell(record, "capacity", error)
            return None
        if len(found[0]) < len(here):
            return None
        return capacity.most(found[0], found[1], requests_per_s, plan.capacity)

    def _tell(self, record: RolloutRecord, what: str, error: Exception) -> None:
        """Once for each cause."""
        key, text = f"{record.id}/{what}", f"{type(error).__name__}: {error}"
        if self._told.get(key) != text:
            self._told[key] = text
            note = logs.get().warning if isinstance(error, GatewayError) else logs.get().exception
            note(f"rollout: {what} cannot be read", rollout=record.id, error=text)


def _requests_per_s(cursor: Cursor, collected: Collected, baseline: Baseline, record: RolloutRecord, now: Now) -> float:
    """Of the model: now, or over the whole rollout, whichever is more; before it has any, as before the start."""
    if not record.stages:
        return baseline.requests_per_s
    facts, began_s = collected.facts, record.stages[0].at
    whole = (facts.n_stable + facts.n_candidate) / max(now.wall_s - began_s, 1.0)
    since_s = now.wall_s - cursor.acknowledged_s if cursor.acknowledged_s is not None else 0.0
    if since_s < 1.0:
        return whole
    return max(whole, sum(collected.evidence.drawn(cursor.epoch)) / since_s)


def _latency_now(baseline: Baseline, collected: Collected) -> LatencyBaseline | None:
    before = baseline.latency_now
    if before is None or collected.stable_latency is None:
        return None
    return evidencebaseline.renewed(before, collected.stable_latency)


def _when_known(trial: Trial, plan: Plan, baseline: Baseline, cursor: Cursor, now: Now) -> Trial:
    """Latency is judged at thresholds that stable's own answers gave, so it needs some before the first request falls
    on the candidate; without any the rollout would stand still later, with callers on it. Cost is waited for a moment,
    not for ever: where every batch has several requests, nobody's is known alone.
    """
    rails = plan.guardrails.values()
    if baseline.latency is not None or not any(isinstance(rail, Latency) and rail.required for rail in rails):
        waits = baseline.cost is None and now.wall_s < cursor.entered_s + COST_PATIENCE_S
        if waits and any(isinstance(rail, Cost) for rail in rails):
            return Trial(None, seen=f"{trial.seen or 'accepted'}; what a row of stable's costs is not known yet")
        return trial
    if cursor.deadline_s is not None and now.wall_s >= cursor.deadline_s:
        return Trial(
            False,
            f"stable answered {baseline.n} requests in the time there was, expected enough to know how fast it is"
            " (100); start again when there is traffic, or switch the latency guardrail off",
        )
    text = f"{trial.seen or 'accepted'}; stable has {baseline.n} of the 100 answers that thresholds for latency need"
    return Trial(None, seen=text)


def stages_of(record: RolloutRecord, plan: Plan, cursor: Cursor, route: RouteRecord | None) -> Mapping[int, Stretch]:
    """By generation of the route, what the candidate's probability was and to which epoch it counts."""
    if plan.mode == "act":
        return {stage.generation: Stretch(stage.epoch, stage.units / SHARE_UNIT) for stage in record.stages}
    found = {
        stage.generation: Stretch(UNUSED_EPOCH + stage.generation, stage.units / SHARE_UNIT) for stage in record.stages
    }
    if route is not None:
        units = rolloutroute.weight_of(route.document, record.candidate)
        found[route.generation] = Stretch(cursor.epoch, units / SHARE_UNIT)
    return found


def workers_of(
    record: RolloutRecord,
    plan: Plan,
    cursor: Cursor,
    live: Sequence[WorkerRecord],
    route: RouteRecord | None,
    lowered: Mapping[str, str],
) -> tuple[Worker, ...]:
    by_generation = {stage.generation: stage for stage in record.stages}
    newest = max(by_generation, default=0)
    found = []
    for worker in live:
        generation = worker.generations.get(record.model, 0)
        known = [number for number in by_generation if number <= generation]
        stage = by_generation[max(known)] if known else None
        epoch, units = (stage.epoch, stage.units) if stage else (0, 0)
        if generation > newest and route is not None and newest and generation == route.generation:
            units = rolloutroute.weight_of(route.document, record.candidate)
        if plan.mode == "observe":  # as if all had done what was only thought of
            epoch, units = cursor.epoch, cursor.units
        states = [
            fleet.state(worker, record.model, version)[0] == fleet.READY
            for version in (record.candidate, record.stable)
        ]
        found.append(
            Worker(worker.incarnation, epoch, units, states[0], states[1], lowered.get(worker.incarnation, ""))
        )
    return tuple(found)


def route_fault(record: RolloutRecord, route: RouteRecord | None) -> str:
    """Whether somebody else's route is in force."""
    newest = max((stage.generation for stage in record.stages), default=None)
    if newest is None or (route is not None and route.generation == newest):
        return ""
    if route is None:
        return "the model has no route any more"
    reason = f" ({route.reason})" if route.reason else ""
    return f"the route of generation {route.generation} is {route.actor}'s{reason}, expected this rollout's, {newest}"


def lacking_stable(snapshot: Snapshot) -> bool:
    """It must be brought up before the candidate's traffic can go back to it."""
    return any(not worker.stable_ready for worker in snapshot.workers)


def document(baseline: Baseline) -> dict[str, Any]:
    found: dict[str, Any] = BASELINE.dump_python(baseline, mode="json")
    return found
