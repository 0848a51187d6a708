"""The duty that carries rollouts out: it looks at each that is live, has `gateway.rollout.decide` say what to do, and
writes that down with all its effects in one transaction of the store. Workers follow the store.

So there is nothing to be finished after a crash: a decision is either not there, and the next leader takes it again
from the same evidence, or it is there with its route. Who has lost the lease is refused by the store. What looks learn
that nobody decided upon (when it was looked, evidence for people) is written once a second for all rollouts together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.control import fleet
from gateway.control.rolloutlook import Looker, Sight
from gateway.control.rolloutstep import ACTOR, may_let_go, new_alerts, sample_of, status_of, step_of
from gateway.errors import GatewayError
from gateway.observability import logs
from gateway.rollout.cursor import Cursor
from gateway.rollout.decide import begin, decide
from gateway.rollout.decision import Decision
from gateway.rollout.phase import Event, Hold, Stage
from gateway.rollout.plan import Plan, parse
from gateway.rollout.snapshot import Now

if TYPE_CHECKING:
    from gateway.store import RouteRecord, Store, WorkerRecord
    from gateway.store.rolloutrecords import RolloutRecord, Sample, Touch

EVERY_S = 0.01
IDLE_S = 0.25
"""Between two looks for a rollout, while there is none."""
MAX_WAIT_S = 0.5
US = 1_000_000.0
RETRY_S = 0.2
ACKNOWLEDGE_S = 0.1
"""While workers are still to take a route: clocks start when the last one has."""
MAX_LOOK_S = 60.0
TOUCH_EVERY_S = 1.0
BUSY_SHARE = 0.5
"""Of one processor, at most: with very many rollouts each is looked at less often."""
MAX_HOLDS_KEPT = 5_000
"""Decisions of one rollout; after so many only those that moved it are kept: a hold that comes and goes is no news."""
MAX_SAMPLES_UNTOLD = 1_000
SAMPLES = 2_000.0
"""Points of a timeline in its first doubling: the longer it takes, the further apart they are."""


@dataclass(slots=True)
class _Known:
    """Of one rollout, while this process leads."""

    plan: Plan | None = None
    cursor: Cursor | None = None  # None: the stored one; newer than that when the last looks changed nothing
    seq: int = 0  # that the cursor belongs to
    looked_s: float | None = None  # monotonic
    due_s: float = 0.0  # monotonic
    retry_s: float = 0.0  # not before, after a failure
    sampled_s: float = 0.0
    has_let_go: bool = False
    fault: str = ""
    touch: Touch | None = None


@dataclass(slots=True)
class Rollouts:
    """One per control process; `run` is a duty of whoever leads. `term` is asked at every write."""

    term: Callable[[], int | None]
    looker: Looker = field(default_factory=Looker)
    endpoints: Sequence[str] = ()
    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    live_s: float = fleet.LIVE_S
    _led: int | None = None
    _known: dict[str, _Known] = field(default_factory=dict)
    _records: dict[str, RolloutRecord] = field(default_factory=dict)
    _revision: int = -1
    _samples: list[Sample] = field(default_factory=list)
    _touched_s: float = 0.0
    looks: int = 0
    busy_s: float = 0.0

    def run(self, store: Store) -> None:
        """Every rollout that is due, once."""
        term = self.term()
        if term is None:
            return
        if term != self._led:  # somebody else may have looked meanwhile: what was remembered is worth nothing
            self._led = term
            self._known.clear()
            self._records.clear()
            self._revision = -1
        if not self._records and self._revision >= 0:
            self.sleep(IDLE_S)
            revision = store.revision()
        else:
            pause_s = min((known.due_s for known in self._known.values()), default=0.0) - self.monotonic()
            revision = store.wait_for_change(self._revision, max(0.0, min(pause_s, MAX_WAIT_S)))
        if revision != self._revision:  # an order, a route, another version: worth a look at once
            self._records = {record.id: record for record in store.rollouts(live=True)}
            self._revision = revision
            for name in self._known.keys() - self._records.keys():
                del self._known[name]
            for known in self._known.values():
                known.due_s = min(known.due_s, known.retry_s)
        now_s = self.monotonic()
        due = [record for record in self._records.values() if self._due_s(record) <= now_s and not self._waits(record)]
        if due:
            live = fleet.living(store.workers(seen_within_s=self.live_s))
            routes = store.routes()
            for record in sorted(due, key=self._due_s):
                self._attend(store, record, live, routes.get(record.model), term, alone=len(due) == 1)
        self._flush(store, term)

    def _due_s(self, record: RolloutRecord) -> float:
        known = self._known.get(record.id)
        return known.due_s if known else 0.0

    def _waits(self, record: RolloutRecord) -> bool:
        other = self._records.get(record.waits_for)
        return other is not None and other.stage != Stage.PROMOTED

    def _attend(
        self,
        store: Store,
        record: RolloutRecord,
        live: Sequence[WorkerRecord],
        route: RouteRecord | None,
        term: int,
        *,
        alone: bool,
    ) -> None:
        """One look. What fails concerns this rollout alone and is told once."""
        known = self._known.setdefault(record.id, _Known())
        began_s = self.monotonic()
        try:
            if record.waits_for:
                record = self._records[record.id] = self._begin(store, record, route, term)
                known.cursor = None
            if known.cursor is None or known.seq != record.seq:
                known.cursor, known.seq, known.looked_s = Cursor.from_dict(record.cursor), record.seq, None
            known.plan = known.plan or parse(record.plan)
            self._look(store, record, known.plan, known.cursor, known, live, route, term)
            known.fault = ""
        except Exception as error:
            self._failed(record, known, error)
        took_s = self.monotonic() - began_s
        self.looks += 1
        self.busy_s += took_s
        if not alone:
            self.sleep(min(took_s * (1.0 / BUSY_SHARE - 1.0), 0.1))

    def _begin(self, store: Store, record: RolloutRecord, route: RouteRecord | None, term: int) -> RolloutRecord:
        """The one it waited for is out of its way."""
        base = {"generation": route.generation, "route": route.document} if route else record.base
        cursor = begin(parse(record.plan), self.wall())
        return store.next_rollout(record.id, cursor.as_dict(), base, term)

    def _look(
        self,
        store: Store,
        record: RolloutRecord,
        plan: Plan,
        before: Cursor,
        known: _Known,
        live: Sequence[WorkerRecord],
        route: RouteRecord | None,
        term: int,
    ) -> None:
        from gateway.store.rolloutrecords import Touch

        mono_s = self.monotonic()
        now = Now(self.wall(), None if known.looked_s is None else mono_s - known.looked_s)
        sight = self.looker.look(store, record, plan, before, live, route, now)
        decision = decide(plan, sight.snapshot)
        ends = decision.next_look_s is None
        is_news = decision.event is not None or decision.changes_traffic or ends
        is_news = is_news or bool(new_alerts(decision, record.status))
        self._sample(record, known, decision, sight)
        if is_news or (decision.changes(before) and record.seq < MAX_HOLDS_KEPT):
            step = step_of(record, plan, before, sight, decision, self.endpoints)
            after = store.apply_rollout(step, term)
            self._tell(record, decision, step.headline)
            if not after.is_live:
                del self._records[record.id], self._known[record.id]
                return
            self._records[record.id], known.seq, known.touch = after, after.seq, None
        else:
            status = status_of(plan, decision, sight, record.status)
            known.touch = Touch(record.id, record.seq, decision.cursor.as_dict(), status)
        known.cursor, known.looked_s = decision.cursor, mono_s
        if decision.cursor.stage is Stage.PROMOTED and plan.mode == "act":
            self._let_go(store, record, plan, known, sight)
        waits = Hold.ACKNOWLEDGEMENT in decision.holds or decision.changes_traffic
        known.due_s = mono_s + min(decision.next_look_s or 0.0, ACKNOWLEDGE_S if waits else MAX_LOOK_S)

    def _let_go(self, store: Store, record: RolloutRecord, plan: Plan, known: _Known, sight: Sight) -> None:
        """Of stable: `keep` after the promotion it is unloaded. It is brought up again should it be needed."""
        kept_s = sight.snapshot.now.wall_s - max((stage.at for stage in record.stages), default=0.0)
        if not known.has_let_go and kept_s >= plan.keep_us / US and may_let_go(record, sight):
            store.unwant(
                record.model, record.stable, ACTOR, f"rollout {record.id}: kept for its time after the promotion"
            )
            known.has_let_go = True

    def _sample(self, record: RolloutRecord, known: _Known, decision: Decision, sight: Sight) -> None:
        """A point of its timeline, at every decision and now and then."""
        from gateway.store.rolloutrecords import Sample

        now_s = sight.snapshot.now.wall_s
        apart_s = max(TOUCH_EVERY_S / 2, (now_s - record.created_at) / SAMPLES)
        if abs(now_s - known.sampled_s) >= apart_s or decision.event is not None:
            self._samples.append(Sample(record.id, now_s, sample_of(decision, sight)))
            known.sampled_s = now_s

    def _flush(self, store: Store, term: int) -> None:
        now_s = self.monotonic()
        if now_s - self._touched_s < TOUCH_EVERY_S:
            return
        touches = [known.touch for known in self._known.values() if known.touch is not None]
        samples = self._samples[-MAX_SAMPLES_UNTOLD:]
        self._touched_s = now_s
        store.touch_rollouts(touches, samples, term)
        self._samples.clear()
        for known in self._known.values():
            known.touch = None

    def _failed(self, record: RolloutRecord, known: _Known, error: Exception) -> None:
        """What was being written may be there or not: everything is read again. It concerns this rollout alone, and is
        told once.
        """
        text = f"{type(error).__name__}: {error}"
        if text != known.fault:
            if isinstance(error, GatewayError):
                logs.get().warning("rollout is looked at again", rollout=record.id, error=text)
            else:
                logs.get().exception("rollout cannot be looked at", rollout=record.id, error=text)
        self._revision = -1
        retry_s = self.monotonic() + RETRY_S
        self._known[record.id] = _Known(known.plan, due_s=retry_s, retry_s=retry_s, fault=text)

    def _tell(self, record: RolloutRecord, decision: Decision, headline: str) -> None:
        bad = decision.event in (Event.ROLL_BACK, Event.REFUSE, Event.GIVE_UP)
        note = logs.get().warning if bad else logs.get().info
        note(
            f"rollout {decision.event.value if decision.event else 'hold'}",
            rollout=record.id,
            model=record.model,
            version=record.candidate,
            stage=decision.cursor.stage.value,
            weight=decision.cursor.units / 100,
            what=headline,
            by=ACTOR,
        )
