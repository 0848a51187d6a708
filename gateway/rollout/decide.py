"""What to do with a rollout, from what is known of it: pure, one step at a time, the same snapshot the same decision.

In each look, in this order: what takes the candidate back (an operator, a fact, a guardrail that said so twice), then
what keeps it where it is (the holds), then whether it has earned to go on. So nothing that makes it wait ever keeps it
from going back, and no time that passes ever makes it go on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gateway.rollout import earn
from gateway.rollout.cursor import Cursor
from gateway.rollout.decision import Decision
from gateway.rollout.look import BACK_LOOK_S, CALM_LOOK_S, CONFIRM_LOOK_S, LATE_LOOK_S, LIVE_LOOK_S, US, Look
from gateway.rollout.phase import Event, Hold, Stage, is_over
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Snapshot
from gateway.routing.route import SHARE_UNIT


def begin(plan: Plan, wall_s: float) -> Cursor:
    """The cursor of an attempt that starts now."""
    deadline_s = wall_s + plan.acceptance.max_time_us / US
    return Cursor(plan.digest(), entered_s=wall_s, looked_s=wall_s, deadline_s=deadline_s)


def decide(plan: Plan, snapshot: Snapshot) -> Decision:
    """ValueError: the cursor is of another plan, whose rollout must be superseded first."""
    if snapshot.cursor.plan != plan.digest():
        raise ValueError(
            f"plan: got digest {plan.digest()[:12]}, expected {snapshot.cursor.plan[:12]}, which this rollout began"
            " with; start another rollout to use another plan"
        )
    look = Look(plan, snapshot)
    stage = look.cursor.stage
    if is_over(stage):
        return look.stay(None)
    return _BY_STAGE[stage](look)


# --- before anybody's request


def _loading(look: Look) -> Decision:
    snapshot, cursor = look.snapshot, look.cursor
    if ordered := _ordered_back(look):
        return ordered
    if snapshot.load_fault:
        return _refuse(look, snapshot.load_fault)
    missing = [worker.incarnation for worker in snapshot.workers if not worker.candidate_ready]
    if snapshot.workers and not missing:
        if _waits(look):
            return look.stay(CALM_LOOK_S)
        look.say("every worker has the candidate loaded")
        deadline_s = look.after(look.plan.acceptance.max_time_us)
        return look.go(Event.LOADED, replace(cursor, deadline_s=deadline_s), CALM_LOOK_S)
    if look.is_over(cursor.deadline_s) and Hold.CLOCK not in look.holds:
        return _refuse(look, f"not loaded in time by {', '.join(missing) or 'any worker, there is none'}")
    look.say(f"waiting for {', '.join(missing) or 'a worker'} to load the candidate")
    return look.stay(CALM_LOOK_S)


def _warming(look: Look) -> Decision:
    snapshot, plan = look.snapshot, look.plan
    if ordered := _ordered_back(look):
        return ordered
    if snapshot.load_fault or snapshot.trial.passed is False:
        return _refuse(look, snapshot.load_fault or snapshot.trial.fault or "not accepted, no reason was given")
    if snapshot.trial.passed is None:
        if look.is_over(look.cursor.deadline_s) and Hold.CLOCK not in look.holds:
            return _refuse(look, "not accepted in time: golden examples, NaN, latency and memory were not all tried")
        look.say(snapshot.trial.seen or "golden examples, NaN, latency and memory are tried")
        return look.stay(CALM_LOOK_S)
    waits = _waits(look)
    accepted = f"accepted ({snapshot.trial.seen})" if snapshot.trial.seen else "accepted"
    if plan.does("shadow"):
        if waits:
            return look.stay(CALM_LOOK_S)
        look.say(f"{accepted}; {plan.shadow.percent:g} % of the requests are copied to it")
        return look.go(Event.START_SHADOW, look.traffic(look.cursor, 0, plan.shadow.units), LIVE_LOOK_S)
    return earn.next_stage(look, accepted)


def _refuse(look: Look, fault: str) -> Decision:
    look.say(f"refused: {fault}")
    cursor = replace(look.cursor, cause="fact", reason=fault, deadline_s=None)
    return look.go(Event.REFUSE, cursor, None)


def _waits(look: Look) -> bool:
    if look.snapshot.orders.is_paused:
        look.hold(Hold.MANUAL, "an operator paused it")
    return bool(look.holds)


# --- with requests


def _live(look: Look) -> Decision:
    """SHADOW, STEP and BAKING."""
    if back := _ordered_back(look) or _blamed(look):
        return back
    look.cursor = earn.acknowledged(look)
    earn.find_holds(look)
    if back := _policy_back(look):
        return back
    decision = earn.renewed(look) or earn.go_on(look)
    if decision.event is None and look.suspicions:
        return replace(decision, next_look_s=CONFIRM_LOOK_S)
    return decision


def _promoted(look: Look) -> Decision:
    """Nobody answers but the candidate; values that come late may still speak against it."""
    if look.is_over(look.cursor.deadline_s) and Hold.CLOCK not in look.holds:
        look.say("the version before is no longer kept")
        return look.stay(None)
    orders = look.snapshot.orders
    if orders.abort:
        return _back(look, Event.ROLL_BACK, "abort", f"an operator: {orders.abort}")
    if orders.superseded_by:
        look.say(f"another rollout began: {orders.superseded_by}")
        return look.stay(None)
    if back := _blamed(look):
        return back
    return look.stay(CONFIRM_LOOK_S if look.suspicions else LATE_LOOK_S)


def _ordered_back(look: Look) -> Decision | None:
    orders = look.snapshot.orders
    if orders.abort:
        return _back(look, Event.ROLL_BACK, "abort", f"an operator: {orders.abort}")
    if orders.superseded_by:
        return _back(look, Event.SUPERSEDE, "superseded", f"another rollout: {orders.superseded_by}")
    return None


def _blamed(look: Look) -> Decision | None:
    if look.facts:
        return _back(look, Event.ROLL_BACK, "fact", *look.facts)
    if confirmed := look.confirmed():
        said = [f"{verdict.name}: {verdict.rollback.sentence}" for verdict in confirmed if verdict.rollback]
        return _back(look, Event.ROLL_BACK, "guardrail", *said)
    return None


def _policy_back(look: Look) -> Decision | None:
    holds, since = look.plan.holds, look.cursor.held_since(Hold.JUDGE_UNAVAILABLE)
    if Hold.JUDGE_UNAVAILABLE in look.holds and since is not None:
        waited_s, most_s = look.wall_s - since, holds.judge_unavailable_after_us / US
        if waited_s >= most_s:
            text = f"no judgement for {waited_s / 60.0:.0f} min"
            if holds.judge_unavailable == "rollback" and Hold.CLOCK not in look.holds:
                return _back(look, Event.ROLL_BACK, "policy", text)
            look.say(f"{text}: somebody should look")
    return None


def _back(look: Look, event: Event, cause: str, *reasons: str) -> Decision:
    """Its weight to 0 first; but never to a stable version that cannot serve."""
    cursor = replace(look.cursor, cause=cause, reason="; ".join(reasons))
    look.holds.clear()
    look.reasons[:0] = reasons
    if cursor.stage in (Stage.LOADING, Stage.WARMING):
        return look.go(event, replace(cursor, not_before_s=None, deadline_s=None), BACK_LOOK_S)
    cursor = replace(_withdrawn(look, cursor), deadline_s=look.after(look.plan.timing.rollback_us))
    return look.go(event, cursor, BACK_LOOK_S)


def _withdrawn(look: Look, cursor: Cursor) -> Cursor:
    if not cursor.units or look.stable_can_serve():
        return look.traffic(cursor, 0)
    look.hold(Hold.STABLE_LOST, "stable cannot serve in every worker: traffic stays where it is until it can")
    if cursor.shadow_units:
        return look.traffic(cursor, cursor.units)
    return replace(cursor, not_before_s=None)


# --- on the way back


def _rolling_back(look: Look) -> Decision:
    cursor = look.cursor
    if cursor.units:
        withdrawn = _withdrawn(look, cursor)
        if not withdrawn.units:
            look.say("stable serves again: the candidate's weight goes to 0")
            deadline_s = look.after(look.plan.timing.rollback_us)
            return look.stay(BACK_LOOK_S, replace(withdrawn, deadline_s=deadline_s))
    elif drained := _drained(look):
        return drained
    if look.is_over(look.cursor.deadline_s) and Hold.CLOCK not in look.holds and not _is_withdrawn(look):
        look.reasons.insert(0, "it could not be taken back in time: whoever serves keeps serving, somebody must look")
        return look.go(Event.GIVE_UP, replace(look.cursor, deadline_s=None), CALM_LOOK_S)
    return look.stay(BACK_LOOK_S)


def _needs_operator(look: Look) -> Decision:
    cursor, orders = look.cursor, look.snapshot.orders
    if orders.advance and orders.advance.epoch == cursor.epoch and cursor.units:
        look.say(f"an operator keeps the candidate: {orders.advance.reason}")
        kept = replace(look.traffic(cursor, SHARE_UNIT), cause="", reason="")  # a control slice would meet stable
        return look.go(Event.START_BAKING, kept, LIVE_LOOK_S)
    if orders.retry:
        look.say("an operator tries again to take it back")
        return look.go(
            Event.ROLL_BACK,
            replace(_withdrawn(look, cursor), deadline_s=look.after(look.plan.timing.rollback_us)),
            BACK_LOOK_S,
        )
    if not cursor.units and (drained := _drained(look)):
        return drained
    look.say("somebody must look: retry the rollback, or keep the candidate")
    return look.stay(CALM_LOOK_S)


def _is_withdrawn(look: Look) -> bool:
    return not look.cursor.units and look.cursor.acknowledged_s is not None


def _drained(look: Look) -> Decision | None:
    """Over, when no worker gives it requests and those it had have ended, or have had the time to."""
    cursor, timing = look.cursor, look.plan.timing
    if cursor.epoch:  # else no worker ever heard of it
        cursor = look.cursor = earn.acknowledged(look)
        if cursor.acknowledged_s is None:
            waiting = ", ".join(look.unacknowledged()) or "any worker, there is none"
            look.hold(Hold.ACKNOWLEDGEMENT, f"weight 0 is not in force in {waiting}")
            return None
        if look.snapshot.in_flight != 0 and look.wall_s < cursor.acknowledged_s + timing.drain_us / US:
            n = look.snapshot.in_flight
            look.say("its last requests end" if n is None else f"its last {n} requests end")
            return None
    event = Event.CLEARED if cursor.cause == "superseded" else Event.DRAINED
    look.say(f"taken back: {cursor.reason}")
    blocks = event is Event.DRAINED and cursor.cause in ("guardrail", "fact")
    return look.go(event, replace(cursor, deadline_s=None), None, blocks=blocks)


_BY_STAGE: dict[Stage, Callable[[Look], Decision]] = {
    Stage.LOADING: _loading,
    Stage.WARMING: _warming,
    Stage.SHADOW: _live,
    Stage.STEP: _live,
    Stage.BAKING: _live,
    Stage.PROMOTED: _promoted,
    Stage.ROLLING_BACK: _rolling_back,
    Stage.NEEDS_OPERATOR: _needs_operator,
}
