"""A small world whose rollouts are carried out: a real store, workers that follow it, a duty that may die at any call.

Requests fall on arms as in tests.support.rollouts; clocks are moved by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gateway.control.evidence import Collected, Watched
from gateway.control.rolloutlook import Attempt, Looker
from gateway.control.rollouts import Rollouts
from gateway.rollout.baseline import Baseline
from gateway.rollout.decide import begin
from gateway.rollout.evidence import Evidence
from gateway.rollout.plan import Plan, parse
from gateway.rollout.replay import replay
from gateway.rollout.snapshot import Facts, Trial, Worker
from gateway.routing.route import SHARE_UNIT, shares_of, validate_against
from gateway.routing.route import parse as parse_route
from gateway.store import Store, StoreUnavailable, VersionRecord, WorkerRecord
from gateway.store.rolloutrecords import NewRollout, RolloutRecord
from gateway.store.rollouts import LEASE
from tests.support.rollouts import Version, World

MODEL, STABLE, CANDIDATE = "fraud", "1", "2"
DIGESTS = {STABLE: "sha256:one", CANDIDATE: "sha256:two"}
KNOWN = {STABLE: "registered", CANDIDATE: "registered"}


class Died(BaseException):
    """The process is gone: nothing of it catches this."""


class Mortal:
    """A store whose caller dies at the call of that number, before it does anything or after it has done all."""

    def __init__(self, store: Store, tick: Callable[[float], None]) -> None:
        self._store, self._tick = store, tick
        self.calls = 0
        self.dies_at: int | None = None
        self.after = False
        self.fails = False
        """Raise StoreUnavailable instead: the process lives, the store does not answer."""
        self.is_away = False
        """The store answers to no call at all."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        return self._watched(found) if callable(found) else found

    def wait_for_change(self, seen: int, timeout_s: float) -> int:
        self._tick(max(timeout_s, 0.01))
        revision: int = self._watched(self._store.revision)()
        return revision

    def _watched(self, call: Any) -> Any:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.is_away:
                raise StoreUnavailable("store: is locked by somebody else")
            is_now = self.calls == self.dies_at
            if is_now and not self.after:
                self._end()
            answer = call(*arguments, **named)
            if is_now:
                self._end()
            return answer

        return watched

    def _end(self) -> None:
        if self.fails:
            raise StoreUnavailable("store: as the test wants it")
        raise Died


class Carried:
    """`turn` lets a moment pass: requests come, workers follow the store, whoever leads looks."""

    def __init__(self, store: Store, rules: Plan, candidate: Version | None = None, *, seed: int = 0) -> None:
        self.store, self.plan = store, rules
        self.world = World(rules, candidate, seed=seed, requests_per_s=2000)
        self.mono_s = 1000.0
        self.trial_says = Trial(True)
        self.term = 1
        self.evidence_fault = ""
        self.follows = True
        self.stable_ready = self.candidate_ready = True
        self._generation = 0
        self._counted_for = ""
        if not store.versions(MODEL):
            for version, digest in DIGESTS.items():
                store.register_version(VersionRecord(MODEL, version, digest, f"/models/{version}"), "ada")
            store.put_route(MODEL, {"versions": {STABLE: 100}}, 0, "ada", "the first")
        self.lead()
        self.duty = self.born()
        self.report()

    # --- who leads

    def lead(self, holder: str = "one") -> None:
        """The next term is somebody's."""
        self.store.release(LEASE, "one")
        self.store.release(LEASE, "two")
        term = self.store.lease(LEASE, holder, 1e6)
        assert term is not None
        self.term = term

    def born(self, term: int | None = None) -> Rollouts:
        """Another process's duty: it remembers nothing."""
        self.mortal = Mortal(self.store, self.tick)
        mine = self.term if term is None else term
        return Rollouts(
            lambda: mine,
            Looker(self),
            ("hook",),
            wall=lambda: self.world.wall_s,
            monotonic=lambda: self.mono_s,
            sleep=lambda _: None,
            live_s=1e12,
        )

    def start(self, rules: Plan | None = None, **wishes: Any) -> RolloutRecord:
        rules = rules or self.plan
        current = self.store.routes()[MODEL]
        record = self.store.start_rollout(
            NewRollout(
                MODEL, STABLE, DIGESTS[STABLE], CANDIDATE, DIGESTS[CANDIDATE], rules.document(),
                begin(rules, self.world.wall_s).as_dict(),
                {"generation": current.generation, "route": current.document}, (CANDIDATE,), **wishes,
            ),
            "ada", "a test",
        )  # fmt: skip
        self.report()
        return record

    # --- senses, as the duty has them

    def collect(self, store: Store, live: Sequence[WorkerRecord], watched: Watched, now_s: float) -> Collected:
        return Collected(
            self.world.evidence, self.world.facts, 60.0 if self.evidence_fault else 0.0, self.evidence_fault, {}, 0
        )

    def baseline(
        self, store: Store, live: Sequence[WorkerRecord], model: str, stable: str, plan: Plan, now_s: float
    ) -> Baseline:
        return self.world.baseline

    def trial(self, store: Store, live: Sequence[WorkerRecord], attempt: Attempt) -> Trial:
        return self.trial_says

    # --- time

    def tick(self, seconds: float) -> None:
        self.world.wall_s += seconds
        self.mono_s += seconds

    def report(self) -> None:
        """Workers have the newest route, and say so; requests fall by its weights."""
        route, record = self.store.routes()[MODEL], self.record_or_none()
        if self.follows:
            units = sum(s.units for s in shares_of(parse_route(route.document).versions) if s.version == CANDIDATE)
            stages = [] if record is None else [s for s in record.stages if s.generation == route.generation]
            epoch = stages[-1].epoch if stages else 0
            shadow = stages[-1].shadow_units if stages else 0
            self.world.workers = [Worker(f"w{i}", epoch, units, True, True) for i in range(2)]
            self.world.cursor = replace(self.world.cursor, shadow_units=shadow, units=units)
            self._generation = route.generation
        if record is not None and record.id != self._counted_for:
            self._counted_for, self.world.evidence, self.world.facts = record.id, Evidence(), Facts()
        states = {
            version: {"state": "READY" if ready else "LOADING"}
            for version, ready in ((STABLE, self.stable_ready), (CANDIDATE, self.candidate_ready))
        }
        for i in range(2):
            self.store.report_worker(
                WorkerRecord(
                    f"w{i}", i, "host", 1, 0.0, self.world.wall_s, self.store.revision(),
                    {MODEL: self._generation}, {MODEL: states}, {}, True,
                )
            )  # fmt: skip

    def turn(self, seconds: float = 0.5, *, requests: bool = True) -> None:
        self.tick(seconds)
        if requests:
            self.world.serve(round(self.world.requests_per_s * seconds))
        self.duty.run(self.mortal)  # type: ignore[arg-type]
        self.report()

    def until(self, probe: Callable[[], bool], turns: int = 400) -> None:
        for _ in range(turns):
            if probe():
                return
            self.turn()
        raise AssertionError(f"it did not come to that; it is {self.record().stage}: {self.record().status}")

    # --- what the store says

    def record_or_none(self) -> RolloutRecord | None:
        found = self.store.rollouts(MODEL, limit=1)
        return found[0] if found else None

    def record(self) -> RolloutRecord:
        found = self.record_or_none()
        assert found is not None
        return found

    def check(self, *, again: bool = False) -> None:
        """What holds after every call to the store, wherever the process died. `again`: take the decisions again."""
        records = self.store.rollouts(MODEL)
        busy = [each for each in records if each.is_live and each.stage != "promoted" and not each.waits_for]
        assert len(busy) <= 1
        route = self.store.routes()[MODEL]
        assert validate_against(parse_route(route.document), KNOWN) == []
        units = sum(s.units for s in shares_of(parse_route(route.document).versions) if s.version == CANDIDATE)
        published: set[int] = set()
        good = self.store.last_good(MODEL)
        for record in records:
            decisions = self.store.rollout_decisions(record.id)
            assert [each.seq for each in decisions] == list(range(1, record.seq + 1))
            if decisions:
                last = decisions[-1]
                assert (record.stage, record.cursor["epoch"]) == (last.stage, last.epoch)
            assert [s.epoch for s in record.stages] == [d.epoch for d in decisions if d.generation is not None]
            assert [s.generation for s in record.stages] == [
                d.generation for d in decisions if d.generation is not None
            ]
            assert [s.epoch for s in record.stages] == list(range(1, len(record.stages) + 1))
            published |= {stage.generation for stage in record.stages}
            if again:
                pairs = [(each.snapshot, each.decision) for each in decisions if each.snapshot is not None]
                assert replay(parse(record.plan), pairs) == []
            if record.stages and record.stages[-1].generation == route.generation:
                assert units == record.cursor["units"]
            if record.stage in ("rolled_back", "refused") and record is records[0] and not busy and good is None:
                assert units == 0
        own = {each.generation for each in self.store.route_history(MODEL) if each.actor == "gateway"}
        assert own <= published
        promotions = [r for r in records if any(d.event == "promote" for d in self.store.rollout_decisions(r.id))]
        assert (good is not None) == bool(promotions)
        assert units in range(SHARE_UNIT + 1)


def open_store(folder: Path) -> Store:
    return Store.open(f"sqlite:///{folder / 'gateway.db'}")
