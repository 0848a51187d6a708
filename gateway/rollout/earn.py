"""Whether a candidate has earned its next stage: what holds it, what it has still to show, and what comes next."""

from __future__ import annotations

from dataclasses import replace

from gateway.rollout import hard
from gateway.rollout.cursor import Cursor
from gateway.rollout.decision import Decision
from gateway.rollout.guardrail import Latency
from gateway.rollout.look import CALM_LOOK_S, LATE_LOOK_S, LIVE_LOOK_S, US, Look
from gateway.rollout.phase import Event, Hold, Stage
from gateway.rollout.plan import RAISED
from gateway.routing.route import SHARE_UNIT

STANDS = frozenset({Hold.CLOCK, Hold.SUSPECT, Hold.ACKNOWLEDGEMENT, Hold.ROUTE, Hold.CAPACITY})
"""Holds that no operator's word overrides: they pass by themselves, or a rollback follows."""
UNSOUND = frozenset({Hold.JUDGE_UNAVAILABLE, Hold.SPLIT, Hold.STABLE_LOST})
"""What is counted then is not to be built upon."""


def acknowledged(look: Look) -> Cursor:
    """The cursor, with the stage's clock started if the last worker has its traffic in force now."""
    cursor, plan = look.cursor, look.plan
    if cursor.acknowledged_s is not None or not look.snapshot.workers or look.unacknowledged():
        return cursor
    cursor = replace(cursor, acknowledged_s=look.wall_s)
    least_us, most_us = {
        Stage.SHADOW: (plan.shadow.min_time_us, plan.shadow.max_time_us),
        Stage.STEP: (plan.steps[cursor.step].min_time_us, plan.steps[cursor.step].max_time_us),
        Stage.BAKING: (plan.bake.time_us, plan.bake.max_time_us),
    }.get(cursor.stage, (None, None))
    if least_us is None or most_us is None or cursor.deadline_s is not None:  # the clock goes on: see `renewed`
        return cursor
    return replace(cursor, not_before_s=look.after(least_us), deadline_s=look.after(most_us))


def find_holds(look: Look) -> None:
    """All but those that depend on what comes next."""
    snapshot, cursor, judgement = look.snapshot, look.cursor, look.judgement
    assert judgement is not None
    if look.suspicions:
        looks = f"of {look.plan.risk.looks} looks"
        for one in look.suspicions:
            verdict = next(v for v in judgement.guardrails if v.name == one.name)
            assert verdict.rollback is not None
            look.hold(Hold.SUSPECT, f"{one.name}, {one.looks} {looks}: {verdict.rollback.sentence}")
    if incident := hard.shared_incident(snapshot.facts):
        look.hold(Hold.SUSPECT, incident)
    for verdict in look.worse("pause"):
        assert verdict.rollback is not None
        look.hold(Hold.GUARDRAIL, f"{verdict.name}: {verdict.rollback.sentence}")
    for verdict in look.worse("alert"):
        assert verdict.rollback is not None
        look.say(f"alert, {verdict.name}: {verdict.rollback.sentence}")
    if judgement.is_split_broken:
        look.hold(Hold.SPLIT, judgement.split.sentence)
    for text in _unjudged(look):
        look.hold(Hold.JUDGE_UNAVAILABLE, text)
    if cursor.acknowledged_s is None:
        waiting = ", ".join(look.unacknowledged()) or "any worker, there is none"
        look.hold(Hold.ACKNOWLEDGEMENT, f"its traffic is not in force yet in {waiting}")
    if fault := snapshot.route_fault or _other_weight(look):
        look.hold(Hold.ROUTE, fault)
    if snapshot.workers and not look.stable_can_serve():
        look.hold(Hold.STABLE_LOST, "stable cannot serve in every worker: there would be no way back")
    if not all(worker.candidate_ready for worker in snapshot.workers):
        missing = [worker.incarnation for worker in snapshot.workers if not worker.candidate_ready]
        look.hold(Hold.CAPACITY, f"the candidate is not ready in {', '.join(missing)}")
    if snapshot.orders.is_paused:
        look.hold(Hold.MANUAL, "an operator paused it")


def _unjudged(look: Look) -> list[str]:
    snapshot, judgement = look.snapshot, look.judgement
    stale_s = look.plan.timing.stale_us / US
    found = list(judgement.faults) if judgement else []
    if snapshot.evidence_fault:
        found.append(f"the evidence cannot be relied on: {snapshot.evidence_fault}")
    if snapshot.evidence_age_s is None:
        found.append("no worker has reported evidence")
    elif snapshot.evidence_age_s > stale_s:
        found.append(f"evidence is {snapshot.evidence_age_s:.0f} s old, expected a report every {stale_s:g} s")
    return found


def _other_weight(look: Look) -> str:
    """A worker that has the epoch in force with another weight: somebody else's doing."""
    for worker in look.snapshot.workers:
        if worker.epoch == look.cursor.epoch and worker.units != look.cursor.units and not worker.lowered:
            got, expected = worker.units * 100.0 / SHARE_UNIT, look.cursor.units * 100.0 / SHARE_UNIT
            return f"worker {worker.incarnation} gives the candidate {got:g} %, expected {expected:g} %"
    return ""


def renewed(look: Look) -> Decision | None:
    """The same weight in a new epoch, when stable's latency is not where its thresholds are: it was stalled when they
    were taken, or is under another load now. They would blame nobody, and show nobody good; what they have shown so far
    stays.
    """
    cursor, now, before = look.cursor, look.snapshot.latency, look.snapshot.baseline.latency_now
    if now is None or before is None or cursor.stage is Stage.SHADOW or cursor.units == SHARE_UNIT:
        return None
    if look.holds & (STANDS | UNSOUND):
        return None
    again = max(len(look.snapshot.baseline.later) - max(cursor.step, 0), 0)  # each time twice as many must say so
    for rail in look.plan.guardrails.values():
        if isinstance(rail, Latency) and (text := now.strays_from(before, rail.shown, rail.floor_us, 2**again)):
            look.say(f"latency is counted at new thresholds: {text}")
            after = look.traffic(cursor, cursor.units)
            return look.stay(
                LIVE_LOOK_S, replace(after, not_before_s=cursor.not_before_s, deadline_s=cursor.deadline_s)
            )
    return None


def go_on(look: Look) -> Decision:
    """To the next stage if it is earned, or an operator answers for it."""
    advance = look.snapshot.orders.advance
    if advance is not None and advance.epoch == look.cursor.epoch:
        is_shown = look.shown_good()  # for the record
        text = f"an operator: {advance.reason}" + ("" if is_shown else " (the guardrails have not shown it good)")
        return next_stage(look, text, by_order=True, to_end=advance.to_end)
    cursor, is_enough = look.cursor, _is_enough(look)
    is_shown = look.shown_good()
    assert look.promotion is not None
    if not is_shown:
        look.say(look.promotion.sentence)
    if not (is_enough and is_shown) and look.is_over(cursor.deadline_s) and Hold.CLOCK not in look.holds:
        policy = look.plan.holds.insufficient_evidence
        if policy == "extend":
            look.say("no answer in the longest time: it gets that time once more")
            cursor = look.cursor = replace(cursor, deadline_s=look.after(_longest_us(look)))
        elif policy == "raise" and cursor.stage is Stage.STEP and is_enough and look.shown_good(wider=RAISED):
            look.say(f"no answer at the plan's margins in the longest time: passed at {RAISED:g} times as wide ones")
            is_shown = True
        elif policy == "rollback" and not look.holds:
            return _given_up(look)
        else:
            look.hold(Hold.INSUFFICIENT_EVIDENCE, "no answer in the longest time: an operator must decide")
    is_time = look.is_over(cursor.not_before_s)
    if cursor.not_before_s is not None and not is_time:
        look.say(f"the least time here is over in {cursor.not_before_s - look.wall_s:.0f} s")
    if not (is_enough and is_shown and is_time):
        return look.stay(LIVE_LOOK_S)
    return next_stage(look, look.promotion.sentence)


def _given_up(look: Look) -> Decision:
    text = "no answer in the longest time"
    look.say(text)
    cursor = replace(look.traffic(look.cursor, 0), cause="policy", reason=text)
    cursor = replace(cursor, deadline_s=look.after(look.plan.timing.rollback_us))
    return look.go(Event.ROLL_BACK, cursor, LIVE_LOOK_S)


def _is_enough(look: Look) -> bool:
    """The least number of requests on either arm, or of pairs, since this traffic is in force."""
    plan, cursor, evidence = look.plan, look.cursor, look.snapshot.evidence
    if cursor.stage is Stage.SHADOW:
        n, least, what = evidence.compared(cursor.epoch), plan.shadow.min_pairs, "shadow pairs"
    else:
        stable, candidate = evidence.drawn(cursor.epoch)
        alone = cursor.units == SHARE_UNIT
        n, what = (candidate if alone else min(stable, candidate)), "settled requests of either arm"
        least = plan.bake.min_requests if cursor.stage is Stage.BAKING else plan.steps[cursor.step].min_requests
    if n < least:
        look.say(f"{n:,} of {least:,} {what}")
    return n >= least


def _longest_us(look: Look) -> int:
    plan, stage = look.plan, look.cursor.stage
    if stage is Stage.SHADOW:
        return plan.shadow.max_time_us
    return plan.bake.max_time_us if stage is Stage.BAKING else plan.steps[look.cursor.step].max_time_us


def next_stage(look: Look, why: str, *, by_order: bool = False, to_end: bool = False) -> Decision:
    """The stage that the plan has next, if nothing holds it, its gate is open and the candidate can carry it."""
    event, step, units = _following(look, to_end=to_end)
    for gate in _gates(look, event, step):
        if gate not in look.snapshot.orders.opened and not by_order:
            look.hold(Hold.GATE, f"an operator must open the gate {gate!r}")
    most = look.snapshot.capacity_units
    if most is not None and units > most:
        text = (
            f"the candidate can carry {most * 100 / SHARE_UNIT:g} %, the next weight is {units * 100 / SHARE_UNIT:g} %"
        )
        seen = look.snapshot.capacity_seen
        look.hold(Hold.CAPACITY, f"{text}: {seen}" if seen else text)
    if look.cursor.stage is Stage.WARMING and not look.stable_can_serve():
        look.hold(Hold.STABLE_LOST, "stable cannot serve in every worker: there would be no way back")
    if look.holds & STANDS or (look.holds and not by_order):
        return look.stay(LIVE_LOOK_S)
    look.holds.clear()
    cursor = replace(look.traffic(look.cursor, units), step=step)
    next_look_s = LIVE_LOOK_S
    if event is Event.PROMOTE:
        cursor = replace(cursor, deadline_s=look.after(look.plan.retain_us))
        next_look_s = LATE_LOOK_S
    elif event is Event.START_STEPS and look.cursor.stage is Stage.WARMING:
        next_look_s = CALM_LOOK_S
    look.reasons.insert(0, f"{units * 100 / SHARE_UNIT:g} % to the candidate: {why}")
    return look.go(event, cursor, next_look_s)


def _following(look: Look, *, to_end: bool) -> tuple[Event, int, int]:
    """(event, step, the candidate's weight)."""
    plan, cursor = look.plan, look.cursor
    if cursor.stage is Stage.BAKING:
        return Event.PROMOTE, cursor.step, SHARE_UNIT
    step = cursor.step + 1
    if not plan.does("canary") or to_end or step >= len(plan.steps):
        return Event.START_BAKING, cursor.step, plan.bake_units
    event = Event.NEXT_STEP if cursor.stage is Stage.STEP else Event.START_STEPS
    return event, step, plan.steps[step].units


def _gates(look: Look, event: Event, step: int) -> list[str]:
    """That lie on the way."""
    plan = look.plan
    on_way = {
        "traffic": not look.cursor.units,
        "bake": event is Event.START_BAKING,
        "promote": event is Event.PROMOTE,
    }
    found = [gate for gate in plan.gates_in_force() if on_way[gate]]
    is_step = event in (Event.START_STEPS, Event.NEXT_STEP)
    return [*found, f"step-{step + 1}"] if is_step and plan.steps[step].gate else list(found)
