"""From a decision to the one transaction that carries it out: the record, the route, what workers load, who is told.
Pure: documents in, a RolloutStep out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from gateway.control import rolloutroute
from gateway.control.rolloutlook import Sight, document, lacking_stable
from gateway.rollout import explain
from gateway.rollout.cursor import Cursor
from gateway.rollout.decision import Decision
from gateway.rollout.phase import Event, Hold, Stage, is_over
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Snapshot

if TYPE_CHECKING:
    from gateway.store import Delivery
    from gateway.store.rolloutrecords import RolloutRecord, RolloutStep

ACTOR = "gateway"

_TOLD = {
    Event.ROLL_BACK: "rolling_back",
    Event.SUPERSEDE: "rolling_back",
    Event.DRAINED: "rolled_back",
    Event.CLEARED: "superseded",
    Event.REFUSE: "refused",
    Event.PROMOTE: "promoted",
    Event.GIVE_UP: "needs_operator",
}
_WAITS = (
    Hold.GATE, Hold.INSUFFICIENT_EVIDENCE, Hold.GUARDRAIL, Hold.STABLE_LOST, Hold.SPLIT, Hold.ROUTE, Hold.CAPACITY
)  # fmt: skip
"""Holds that only a person ends, or ought to know of."""

_OUTCOMES = {
    Stage.ROLLED_BACK: "rolled_back",
    Stage.REFUSED: "refused",
    Stage.SUPERSEDED: "superseded",
    Stage.PROMOTED: "promoted",
}


def step_of(
    record: RolloutRecord, plan: Plan, before: Cursor, sight: Sight, decision: Decision, endpoints: Iterable[str] = ()
) -> RolloutStep:
    """What is to be written when the decision changes something."""
    from gateway.store.rolloutrecords import RolloutStep

    snapshot, cursor = sight.snapshot, decision.cursor
    written = decision.as_dict()
    headline = explain.headline(written)[:4000]
    acts = plan.mode == "act"
    publishes = acts and decision.changes_traffic
    route, base = _route(record, plan, sight, decision) if publishes else (None, None)
    ends = is_over(cursor.stage) or (decision.next_look_s is None)
    snapshot_document = snapshot.as_dict()
    return RolloutStep(
        id=record.id,
        seq=record.seq,
        at=snapshot.now.wall_s,
        snapshot=snapshot_document,
        snapshot_digest=snapshot.digest(),
        decision=written,
        headline=headline,
        status=status_of(plan, decision, sight, record.status),
        actor=ACTOR,
        route=route,
        adopts=publishes and route is None,
        route_generation=sight.route.generation if sight.route else 0,
        baseline=_baseline(record, snapshot, decision),
        base=base,
        want=_want(record, snapshot, decision) if acts else frozenset(),
        unwant=_unwant(record, sight, decision) if acts else frozenset(),
        blocks=cursor.reason[:4000] if decision.blocks_digest and acts else "",
        good=_good(record, plan, snapshot, decision) if acts else None,
        clears_retry=decision.event is Event.ROLL_BACK and before.stage is Stage.NEEDS_OPERATOR,
        is_live=not ends,
        outcome=_OUTCOMES.get(cursor.stage, "") if ends or cursor.stage is Stage.PROMOTED else "",
        deliveries=tuple(_deliveries(record, before, decision, sight, headline, endpoints)),
    )


def _baseline(record: RolloutRecord, snapshot: Snapshot, decision: Decision) -> dict[str, Any] | None:
    """What is to be kept of stable: as it was measured, with the first traffic, and its latency with each step."""
    if not decision.changes_traffic:
        return None
    baseline = decision.baseline_after(snapshot)
    return document(baseline) if record.baseline is None or baseline != snapshot.baseline else None


def _route(
    record: RolloutRecord, plan: Plan, sight: Sight, decision: Decision
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(the route to publish, the one from before the rollout if it is to be remembered now). None: the route in force
    does already what is wanted.
    """
    cursor, current = decision.cursor, sight.route
    base: dict[str, Any] = record.base["route"]
    remembered = None
    if not record.stages and current is not None:
        base, remembered = current.document, {"generation": current.generation, "route": current.document}
    if record.stages and current is not None and current.generation != record.stages[-1].generation:
        # Somebody else's: what is forward is held before it comes to this, so the candidate goes, and nothing else.
        if cursor.units or cursor.shadow_units or cursor.cause == "superseded":
            return None, remembered
        if not rolloutroute.names(current.document, record.candidate):
            return None, remembered
        return rolloutroute.withdrawn(current.document, record.stable, record.candidate), remembered
    if cursor.stage is Stage.PROMOTED:
        return rolloutroute.promoted(base, record.candidate), remembered
    if not cursor.units and not cursor.shadow_units:
        return base, remembered
    return (
        rolloutroute.staged(base, plan, record.id, record.stable, cursor.units, cursor.shadow_units),
        remembered,
    )


def _want(record: RolloutRecord, snapshot: Snapshot, decision: Decision) -> frozenset[str]:
    """Stable, from the promotion on, so that it can be let go of in time; and when it is needed and not there."""
    going_back = decision.cursor.stage in (Stage.ROLLING_BACK, Stage.NEEDS_OPERATOR)
    if decision.event is Event.PROMOTE or (going_back and decision.cursor.units and lacking_stable(snapshot)):
        return frozenset({record.stable})
    return frozenset()


def _unwant(record: RolloutRecord, sight: Sight, decision: Decision) -> frozenset[str]:
    """What it had loaded, when it is not needed any more: after the last request has ended, never before."""
    if decision.event and decision.cursor.stage in (Stage.ROLLED_BACK, Stage.REFUSED, Stage.SUPERSEDED):
        return frozenset(record.loads) - {record.stable}
    if decision.cursor.stage is Stage.PROMOTED and decision.next_look_s is None:
        return frozenset({record.stable} if may_let_go(record, sight) else ())
    return frozenset()


def may_let_go(record: RolloutRecord, sight: Sight) -> bool:
    """Of stable, after the promotion: no rule or fallback of the route sends it anything."""
    return sight.route is None or not rolloutroute.names(sight.route.document, record.stable)


def _good(record: RolloutRecord, plan: Plan, snapshot: Snapshot, decision: Decision) -> Any:
    from gateway.store.rolloutrecords import Good

    now_s = snapshot.now.wall_s
    if decision.event is Event.PROMOTE:
        return Good(
            record.model, record.candidate, record.candidate_digest, record.id, record.stable, record.stable_digest,
            now_s + plan.retain_us / 1e6, now_s,
        )  # fmt: skip
    if decision.event is Event.DRAINED and record.outcome == "promoted":  # taken back by what came late
        return Good(record.model, record.stable, record.stable_digest, record.id, "", "", 0.0, now_s)
    return None


def status_of(plan: Plan, decision: Decision, sight: Sight, before: Mapping[str, Any]) -> dict[str, Any]:
    """What the last look found, for people and for who promotes by hand. Where nothing is judged any more, what was
    found last stays.
    """
    written, snapshot = decision.as_dict(), sight.snapshot
    rows = explain.rows(written)
    for row, verdict in zip(rows, decision.guardrails, strict=True):
        row["is_shown_good"] = verdict.is_shown_good
    stable, candidate = snapshot.evidence.drawn(decision.cursor.epoch)
    facts = snapshot.facts
    return {
        "at": snapshot.now.wall_s,
        "epoch": decision.cursor.epoch,
        "headline": explain.headline(written),
        "health": decision.health.value,
        "holds": [hold.value for hold in decision.holds],
        "reasons": written["reasons"],
        "guardrails": rows or before.get("guardrails", []),
        "alerts": sorted({*before.get("alerts", ()), *alerts(decision)}),
        "required": list(plan.required(shadow=decision.cursor.stage is Stage.SHADOW)),
        "promotion": written["promotion"],
        "combined": written["combined"],
        "next_look_s": decision.next_look_s,
        "settled": {
            "stable": stable,
            "candidate": candidate,
            "pairs": snapshot.evidence.compared(decision.cursor.epoch),
        },
        "answered": {"stable": facts.n_stable, "candidate": facts.n_candidate},
        "failed": {"stable": facts.failed_stable, "candidate": facts.failed_candidate},
        "broken": {"stable": facts.broken_stable, "candidate": facts.broken_candidate},
        "harmed": sight.harmed,
        "in_flight": snapshot.in_flight,
        "evidence_age_s": snapshot.evidence_age_s,
        "workers": [
            {
                "incarnation": worker.incarnation,
                "epoch": worker.epoch,
                "units": worker.units,
                "candidate_ready": worker.candidate_ready,
                "stable_ready": worker.stable_ready,
                "lowered": worker.lowered,
            }
            for worker in snapshot.workers
        ],
    }


def sample_of(decision: Decision, sight: Sight) -> dict[str, Any]:
    """A point of the timeline."""
    facts = sight.snapshot.facts
    return {
        "stage": decision.cursor.stage.value,
        "units": decision.cursor.units,
        "shadow_units": decision.cursor.shadow_units,
        "health": decision.health.value,
        "answered": [facts.n_stable, facts.n_candidate],
        "failed": [facts.failed_stable, facts.failed_candidate],
        "broken": [facts.broken_stable, facts.broken_candidate],
        "guardrails": {
            row["name"]: {
                "log_e": row["log_e"],
                "log_threshold": row["log_threshold"],
                "promote_log_e": row["promote_log_e"],
                "promote_log_threshold": row["promote_log_threshold"],
                "effect": row["effect"],
            }
            for row in explain.rows(decision.as_dict())
        },
    }


def _deliveries(
    record: RolloutRecord, before: Cursor, decision: Decision, sight: Sight, headline: str, endpoints: Iterable[str]
) -> list[Delivery]:
    from gateway.store import Delivery

    at = sight.snapshot.now.wall_s
    made = []
    for kind in (*told(before, decision), *(["alert"] if new_alerts(decision, record.status) else [])):
        event_id = hashlib.sha256(f"{record.id} {record.seq + 1} {kind}".encode()).hexdigest()[:32]
        body = json.dumps(cloud_event(record, decision, sight, kind, headline, event_id, at)).encode()
        made += [Delivery(event_id, name, "waiting", 0, at, at, "", body) for name in endpoints]
    return made


def told(before: Cursor, decision: Decision) -> Sequence[str]:
    """Kinds of events that somebody may want to hear of."""
    if decision.event in _TOLD:
        kind = _TOLD[decision.event]
        if decision.event is Event.SUPERSEDE and decision.cursor.stage is Stage.SUPERSEDED:
            kind = "superseded"
        return [kind]
    new = [hold for hold in decision.holds if hold in _WAITS and before.held_since(hold) is None]
    return ["waiting"] if new else []


def alerts(decision: Decision) -> list[str]:
    """Guardrails that say worse, and are only to tell somebody."""
    return [verdict.name for verdict in decision.guardrails if verdict.is_worse and verdict.action == "alert"]


def new_alerts(decision: Decision, status: Mapping[str, Any]) -> set[str]:
    """Each is told once in a rollout."""
    return set(alerts(decision)) - set(status.get("alerts", ()))


def cloud_event(
    record: RolloutRecord, decision: Decision, sight: Sight, kind: str, headline: str, event_id: str, at: float
) -> dict[str, Any]:
    """CloudEvents 1.0, structured JSON."""
    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    data: Mapping[str, Any] = {
        "rollout": record.id,
        "model": record.model,
        "stable": record.stable,
        "candidate": record.candidate,
        "stage": decision.cursor.stage.value,
        "weight_percent": decision.cursor.units / 100,
        "health": decision.health.value,
        "holds": [hold.value for hold in decision.holds],
        "headline": headline,
        "reasons": list(decision.reasons),
        "harmed_requests": sight.harmed,
        "digest_blocked": decision.blocks_digest,
    }
    return {
        "specversion": "1.0",
        "id": event_id,
        "source": f"/v1/rollouts/{record.id}",
        "type": f"gateway.rollout.{kind}",
        "subject": f"{record.model}/{record.candidate}",
        "time": when,
        "datacontenttype": "application/json",
        "data": data,
    }
