"""One look at a rollout: what was read, what is found out about it on the way, and how a decision is made of that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gateway.evidence import combine
from gateway.evidence.verdict import Outcome, Verdict
from gateway.rollout import hard
from gateway.rollout.cursor import Cursor, Suspicion
from gateway.rollout.decision import Decision
from gateway.rollout.judge import GuardrailVerdict, Judgement, judge
from gateway.rollout.phase import Event, Health, Hold, Stage, is_judged, move
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Snapshot

US = 1_000_000.0
CONFIRM_S = 0.2
"""Two looks closer than this are one: nothing has come in between."""
CONFIRM_LOOK_S = 0.25
LIVE_LOOK_S = 0.5
BACK_LOOK_S = 0.1
CALM_LOOK_S = 1.0
LATE_LOOK_S = 60.0
_ORDER = {hold: place for place, hold in enumerate(Hold)}


class Look:
    """Built for one decision and thrown away. `cursor` is the one that was read, with its times put right."""

    def __init__(self, plan: Plan, snapshot: Snapshot) -> None:
        self.plan, self.snapshot = plan, snapshot
        self.wall_s = snapshot.now.wall_s
        jump_s = snapshot.cursor.jump(self.wall_s, snapshot.now.passed_s)
        self.cursor = snapshot.cursor.moved_along(jump_s) if jump_s else snapshot.cursor
        self.holds: set[Hold] = set()
        self.reasons: list[str] = []
        if jump_s:
            self.hold(Hold.CLOCK, f"the clock jumped by {jump_s:+.1f} s; deadlines were moved along")
        stage = self.cursor.stage
        self.judgement = self._judge(1.0) if is_judged(stage) else None
        self.facts = hard.blamed(plan, snapshot) if is_judged(stage) and stage is not Stage.PROMOTED else ()
        self.suspicions = self._suspicions()
        self.promotion: Verdict | None = None

    # --- what is found

    def _judge(self, wider: float) -> Judgement:
        cursor = self.cursor
        width = self.plan.width(cursor.step) if cursor.stage is Stage.STEP else 1.0
        late = cursor.stage is Stage.PROMOTED
        return judge(self.plan, self.snapshot.evidence, self.snapshot.baseline, width=width * wider, late=late)

    def _suspicions(self) -> tuple[Suspicion, ...]:
        """Guardrails that say worse, with how often in a row."""
        before = {one.name: one for one in self.cursor.suspicions}
        found = []
        for verdict in self.worse("rollback"):
            known = before.get(verdict.name)
            if known is None:
                found.append(Suspicion(verdict.name, 1, self.wall_s))
            elif self.wall_s - known.counted_s >= CONFIRM_S:
                found.append(Suspicion(verdict.name, known.looks + 1, self.wall_s))
            else:
                found.append(known)
        return tuple(found)

    def worse(self, action: str) -> list[GuardrailVerdict]:
        verdicts = self.judgement.guardrails if self.judgement else ()
        return [verdict for verdict in verdicts if verdict.is_worse and verdict.action == action]

    def confirmed(self) -> list[GuardrailVerdict]:
        """Those that said worse at enough looks."""
        names = {one.name for one in self.suspicions if one.looks >= self.plan.risk.looks}
        return [verdict for verdict in self.worse("rollback") if verdict.name in names]

    def health(self) -> Health:
        if self.facts:
            return Health.BAD_HARD
        if self.confirmed():
            return Health.BAD_SOFT
        if self.suspicions or hard.shared_incident(self.snapshot.facts):
            return Health.SUSPECT
        if self.judgement is None or self.judgement.is_split_broken or Hold.JUDGE_UNAVAILABLE in self.holds:
            return Health.UNKNOWN
        return Health.OK if any(verdict.is_known for verdict in self.judgement.guardrails) else Health.UNKNOWN

    def combined(self) -> Verdict | None:
        if self.judgement is None:
            return None
        acting = {v.name: v.rollback for v in self.judgement.guardrails if v.action == "rollback" and v.rollback}
        return combine.rollback(acting, self.plan.budget())

    def shown_good(self, *, wider: float = 1.0) -> bool:
        """Whether all that are required are shown good; at margins so many times as wide."""
        judgement = self.judgement if wider == 1.0 else self._judge(wider)
        assert judgement is not None
        names = self.plan.required(shadow=self.cursor.stage is Stage.SHADOW)
        verdicts = {v.name: v.promote for v in judgement.guardrails if v.promote is not None}
        promotion = combine.promote(verdicts, names, self.plan.risk.promote)
        is_shown = promotion.outcome is Outcome.OK
        if wider == 1.0 or is_shown:  # what a decision rests on is what is kept with it
            self.judgement, self.promotion = judgement, promotion
        return is_shown

    def stable_can_serve(self) -> bool:
        """Everywhere: a worker without stable would answer nobody."""
        workers = self.snapshot.workers
        return bool(workers) and all(worker.stable_ready for worker in workers)

    def unacknowledged(self) -> list[str]:
        return [worker.incarnation for worker in self.snapshot.workers if worker.epoch < self.cursor.epoch]

    def is_over(self, deadline_s: float | None) -> bool:
        return deadline_s is not None and self.wall_s >= deadline_s

    def after(self, duration_us: int) -> float:
        return self.wall_s + duration_us / US

    # --- what is said

    def hold(self, hold: Hold, reason: str) -> None:
        self.holds.add(hold)
        self.say(reason)

    def say(self, *reasons: str) -> None:
        self.reasons += [reason for reason in reasons if reason and reason not in self.reasons]

    # --- what is decided

    def stay(self, next_look_s: float | None, cursor: Cursor | None = None) -> Decision:
        """No event; perhaps other traffic, when the cursor has another epoch."""
        return self._decided(None, cursor or self.cursor, next_look_s)

    def go(self, event: Event, cursor: Cursor, next_look_s: float | None, *, blocks: bool = False) -> Decision:
        """The event; `cursor` says what else is new."""
        cursor = replace(cursor, stage=move(self.cursor.stage, event), entered_s=self.wall_s)
        return self._decided(event, cursor, next_look_s, blocks=blocks)

    def traffic(self, cursor: Cursor, units: int, shadow_units: int = 0) -> Cursor:
        """With new weights: a new epoch, whose clock starts when every worker has them in force."""
        return replace(
            cursor,
            units=units,
            shadow_units=shadow_units,
            epoch=cursor.epoch + 1,
            acknowledged_s=None,
            not_before_s=None,
            deadline_s=None,
        )

    def _decided(
        self, event: Event | None, cursor: Cursor, next_look_s: float | None, *, blocks: bool = False
    ) -> Decision:
        is_new = cursor.epoch != self.cursor.epoch
        has_moved = event is not None
        judgement = self.judgement
        return Decision(
            event,
            cursor.units if is_new and cursor.units != self.cursor.units else None,
            replace(
                cursor,
                looked_s=self.wall_s,
                holds=self._held(),
                suspicions=() if has_moved else self.suspicions,
            ),
            self.health(),
            judgement.guardrails if judgement else (),
            judgement.split if judgement else None,
            self.combined(),
            self.promotion,
            tuple(self.reasons),
            next_look_s,
            changes_traffic=is_new,
            blocks_digest=blocks,
        )

    def _held(self) -> tuple[tuple[Hold, float], ...]:
        return tuple((hold, self._since(hold)) for hold in _in_order(self.holds))

    def _since(self, hold: Hold) -> float:
        since = self.cursor.held_since(hold)
        return self.wall_s if since is None else since


def _in_order(holds: Iterable[Hold]) -> list[Hold]:
    return sorted(holds, key=_ORDER.__getitem__)
