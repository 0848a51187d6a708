"""What keeps a rollout where it is, what lets it go on again, and what an operator may answer for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.evidence.counts import BinnedStage
from gateway.evidence.counts import Stage as Counts
from gateway.evidence.verdict import Outcome
from gateway.rollout.evidence import Evidence
from gateway.rollout.phase import Event, Health, Hold, Stage
from gateway.rollout.snapshot import Advance, Orders, Trial
from tests.support.rollouts import Version, World, plan


def at_first_step(**changes: Any) -> World:
    """A candidate with 5 %, acknowledged, without evidence yet."""
    world = World(plan(**changes))
    world.run(30, until=lambda world: world.stage is Stage.STEP and world.cursor.acknowledged_s is not None)
    assert world.stage is Stage.STEP
    return world


def held(world: World) -> tuple[Hold, ...]:
    world.pass_time(1.0)
    return world.look().holds


def test_a_step_waits_for_its_least_time_with_all_evidence_in() -> None:
    world = at_first_step()
    world.serve(100_000)
    decision = world.look()
    assert (decision.event, decision.holds) == (None, ())
    assert any("least time" in reason for reason in decision.reasons)


def test_a_step_waits_for_its_least_requests_although_earlier_ones_show_the_candidate_good() -> None:
    world = at_first_step()
    world.requests_per_s = 10_000
    world.run(60, until=lambda world: world.cursor.step == 1)
    world.requests_per_s = 0
    world.run(200)
    promotion = world.look().promotion
    assert promotion is not None
    assert promotion.outcome is Outcome.OK
    assert world.cursor.step == 1
    assert any("of 200 settled requests" in reason for reason in world.look().reasons)


def test_the_clock_of_a_step_starts_when_the_last_worker_has_its_weight() -> None:
    world = World(plan())
    world.run(30, until=lambda world: world.stage is Stage.STEP)
    world.workers[1] = replace(world.workers[1], epoch=0, units=0)
    world.run(60)
    assert world.cursor.acknowledged_s is None
    assert held(world) == (Hold.ACKNOWLEDGEMENT,)
    world.publish()
    world.look()
    assert world.cursor.not_before_s == world.wall_s + 10.0


def test_a_pause_holds_until_it_is_over() -> None:
    world = at_first_step()
    world.orders = Orders(is_paused=True)
    assert world.run(60).cursor.step == 0
    assert Hold.MANUAL in held(world)
    world.orders = Orders()
    assert world.run(2).cursor.step == 1


def test_a_gate_holds_until_an_operator_opens_it() -> None:
    world = World(plan(gates=["promote"])).run(200)
    assert (world.stage, held(world)) == (Stage.BAKING, (Hold.GATE,))
    world.orders = Orders(opened=("promote",))
    assert world.run(2).stage is Stage.PROMOTED


def test_a_step_may_have_a_gate_of_its_own() -> None:
    world = World(plan(steps=[{"weight": 5, "min_time": "1s"}, {"weight": 25, "min_time": "1s", "gate": True}]))
    world.run(60)
    assert (world.cursor.step, held(world)) == (0, (Hold.GATE,))
    world.orders = Orders(opened=("step-2",))
    assert world.run(2).cursor.step == 1


@pytest.mark.parametrize(
    ("field", "value", "hold"),
    [
        ("evidence_age_s", 11.0, Hold.JUDGE_UNAVAILABLE),
        ("evidence_age_s", None, Hold.JUDGE_UNAVAILABLE),
        ("evidence_fault", "the store is locked", Hold.JUDGE_UNAVAILABLE),
        ("route_fault", "generation 9 is not this rollout's", Hold.ROUTE),
        ("capacity_units", 1000, Hold.CAPACITY),
    ],
)
def test_without_a_judge_a_route_or_room_nothing_moves_and_with_it_again_all_does(
    field: str, value: object, hold: Hold
) -> None:
    world = at_first_step()
    world.others[field] = value
    assert world.run(30).cursor.step == 0
    assert held(world) == (hold,)
    del world.others[field]
    assert world.run(2).cursor.step == 1


def test_counts_that_cannot_be_freeze_the_rollout_and_say_which() -> None:
    world = at_first_step()
    world.run(12)
    bins = world.evidence.bins["latency"][0]
    world.evidence = replace(world.evidence, bins={"latency": (replace(bins, stable=(1, 2), candidate=(3, 4)),)})
    decision = world.look()
    assert (decision.event, decision.holds) == (None, (Hold.JUDGE_UNAVAILABLE,))
    assert any("latency: stages: got 2 bins" in reason for reason in decision.reasons)


def test_a_judge_that_is_gone_for_long_takes_the_candidate_back_only_if_the_plan_says_so() -> None:
    for policy, stage in (("freeze", Stage.STEP), ("rollback", Stage.ROLLED_BACK)):
        world = at_first_step(holds={"judge_unavailable": policy, "judge_unavailable_after": "1min"})
        world.others["evidence_age_s"] = None
        assert world.run(90).stage is stage


def test_a_broken_split_freezes_and_takes_nobody_back() -> None:
    world = at_first_step()
    world.candidate = Version(failing=0.05)
    lost = Evidence(split=(Counts(world.cursor.epoch, 0.05, 20_000, 100, 0, 0),))
    world.evidence = world.evidence + lost
    decision = world.run(3).look()
    assert (world.stage, decision.health) == (Stage.STEP, Health.UNKNOWN)
    assert decision.holds == (Hold.SPLIT,)


def test_a_guardrail_is_believed_at_the_second_look_and_not_at_two_looks_of_one_moment() -> None:
    world = at_first_step()
    world.candidate = Version(failing=0.5)
    world.serve(5000)
    first = world.look()
    assert (first.event, first.holds, first.next_look_s) == (None, (Hold.SUSPECT,), 0.25)
    assert world.look().event is None
    world.pass_time(0.25)
    assert world.look().event is Event.ROLL_BACK


def test_a_guardrail_that_pauses_waits_for_an_operator() -> None:
    world = at_first_step(guardrails={"errors": {"action": "pause"}})
    world.candidate = Version(failing=0.05)
    world.run(60)
    assert (world.stage, held(world)) == (Stage.STEP, (Hold.GUARDRAIL,))


def test_an_alert_is_said_and_holds_nothing() -> None:
    world = at_first_step(guardrails={"outputs": {"action": "alert"}})
    world.candidate = Version(outputs=(0.1, 0.2, 0.3, 0.4))
    world.run(300)
    assert world.stage is Stage.PROMOTED
    assert any(reason.startswith("alert, outputs") for decision in world.decisions for reason in decision.reasons)


# --- no answer in the longest time


def _undecided(policy: str) -> World:
    """A candidate as bad as its margin: it can be neither blamed nor trusted at once."""
    world = at_first_step(
        steps=[{"weight": 5, "min_time": "1s", "max_time": "20s"}, {"weight": 50, "min_time": "1s"}],
        holds={"insufficient_evidence": policy},
        guardrails={"errors": {"tolerated": 1.9, "margin": 2.0}, "latency": "off", "outputs": "off"},
    )
    world.candidate, world.stable = Version(failing=0.0195), Version(failing=0.01)
    return world


@pytest.mark.parametrize(
    ("policy", "stage", "holds"),
    [
        ("ask", Stage.STEP, (Hold.INSUFFICIENT_EVIDENCE,)),
        ("extend", Stage.STEP, ()),
        ("rollback", Stage.ROLLED_BACK, ()),
    ],
)
def test_without_an_answer_in_the_longest_time_the_plans_policy_decides(
    policy: str, stage: Stage, holds: tuple[Hold, ...]
) -> None:
    world = _undecided(policy).run(30)
    assert (world.stage, world.look().holds) == (stage, holds)


def test_the_policy_raise_passes_a_step_on_evidence_at_wider_margins_and_never_a_bake() -> None:
    world = _undecided("raise")
    world.run(60, until=lambda world: world.cursor.step == 1)
    assert world.cursor.step == 1
    passed = next(decision for decision in world.decisions if decision.event is Event.NEXT_STEP)
    errors = next(verdict for verdict in passed.guardrails if verdict.name == "errors")
    assert errors.promote is not None
    assert "less than the margin of 4" in errors.promote.sentence
    world.plan = plan(**{**world.plan.document(), "bake": {"time": "1s", "max_time": "5s"}})
    baking = replace(world.cursor, plan=world.plan.digest(), stage=Stage.BAKING, units=9500)
    world.cursor = replace(baking, acknowledged_s=None)
    world.publish()
    world.look()
    world.serve(100_000)
    world.pass_time(6.0)
    world.look()
    assert (world.stage, world.look().holds) == (Stage.BAKING, (Hold.INSUFFICIENT_EVIDENCE,))


def test_the_policy_raise_passes_nothing_that_is_worse_by_the_wider_margin_too() -> None:
    world = _undecided("raise")
    world.candidate = Version(failing=0.05)
    world.plan = plan(**{**world.plan.document(), "guardrails": {"errors": {"action": "pause"}, "latency": "off"}})
    world.cursor = replace(world.cursor, plan=world.plan.digest())
    world.run(60)
    assert world.cursor.step == 0


def test_a_rollback_by_policy_does_not_block_the_digest() -> None:
    assert not _undecided("rollback").run(30).decisions[-1].blocks_digest


def test_an_operator_may_answer_for_what_is_undecided_but_not_twice_with_one_word() -> None:
    world = _undecided("ask").run(30)
    world.orders = Orders(advance=Advance(world.cursor.epoch, "the review said yes"))
    decision = world.look()
    assert decision.event is Event.START_BAKING or decision.event is Event.NEXT_STEP
    assert "the review said yes" in decision.reasons[0]
    assert "have not shown it good" in decision.reasons[0]
    step = world.cursor.step
    world.requests_per_s = 0
    world.run(5)
    assert world.cursor.step == step


def test_an_operators_word_does_not_give_the_candidate_more_than_it_can_carry() -> None:
    world = at_first_step()
    world.others["capacity_units"] = 1000
    world.orders = Orders(advance=Advance(world.cursor.epoch, "go"))
    assert held(world) == (Hold.CAPACITY,)
    assert world.cursor.step == 0


def test_an_operator_must_say_why() -> None:
    with pytest.raises(ValueError, match="reason: got none"):
        Advance(3, " ")


def test_an_operators_word_does_not_overrule_a_suspicion() -> None:
    world = at_first_step()
    world.candidate = Version(failing=0.5)
    world.serve(5000)
    world.orders = Orders(advance=Advance(world.cursor.epoch, "go"))
    assert world.look().event is None
    world.pass_time(0.3)
    assert world.look().event is Event.ROLL_BACK


# --- clocks


def test_a_clock_that_jumps_an_hour_ahead_moves_the_deadlines_and_fires_none() -> None:
    world = at_first_step(steps=[{"weight": 5, "min_time": "10s", "max_time": "20s"}, {"weight": 50}])
    world.requests_per_s = 0
    left = world.cursor.deadline_s - world.wall_s if world.cursor.deadline_s else 0.0
    world.wall_s += 3600.0
    decision = world.look()
    assert (decision.event, decision.holds) == (None, (Hold.CLOCK,))
    assert world.cursor.deadline_s is not None
    assert world.cursor.deadline_s - world.wall_s == pytest.approx(left)


def test_a_clock_that_goes_back_is_noticed_by_a_new_leader_too() -> None:
    world = at_first_step()
    assert world.cursor.not_before_s is not None
    left = world.cursor.not_before_s - world.wall_s
    world.wall_s -= 3600.0
    world.passed_s = None
    world.look()
    assert world.cursor.not_before_s - world.wall_s == pytest.approx(left)


def test_a_deadline_that_passed_while_nobody_looked_is_judged_first() -> None:
    world = at_first_step(steps=[{"weight": 5, "min_time": "10s", "max_time": "20s"}, {"weight": 50}])
    world.serve(20_000)
    world.pass_time(3600.0)
    world.passed_s = None
    decision = world.look()
    assert decision.event is Event.NEXT_STEP
    assert decision.promotion is not None


# --- before traffic, and on the way back


def test_a_candidate_that_fails_an_example_is_refused_with_it() -> None:
    world = World(plan())
    world.trial = Trial(False, "golden example 7: expected 0.31, got nan")
    world.run(10)
    assert (world.stage, world.weights()) == (Stage.REFUSED, [])
    assert world.cursor.reason == "golden example 7: expected 0.31, got nan"


def test_a_candidate_that_a_worker_cannot_load_in_time_is_refused_naming_the_worker() -> None:
    world = World(plan(acceptance={"max_time": "30s"}))
    world.workers[1] = replace(world.workers[1], candidate_ready=False)
    world.run(40)
    assert world.stage is Stage.REFUSED
    assert "by w1" in world.cursor.reason


def test_traffic_is_never_shifted_to_a_stable_that_cannot_serve() -> None:
    world = at_first_step()
    world.workers = [replace(worker, stable_ready=False) for worker in world.workers]
    world.candidate = Version(failing=0.5)
    world.run(20)
    assert (world.stage, world.cursor.units, held(world)) == (Stage.ROLLING_BACK, 500, (Hold.STABLE_LOST,))
    world.workers = [replace(worker, stable_ready=True) for worker in world.workers]
    world.run(5)
    assert (world.stage, world.cursor.units) == (Stage.ROLLED_BACK, 0)


def test_a_rollback_that_does_not_come_to_an_end_calls_an_operator_who_may_keep_the_candidate() -> None:
    world = at_first_step()
    world.workers = [replace(worker, stable_ready=False) for worker in world.workers]
    world.orders = Orders(abort="changed our mind")
    world.run(70)
    assert (world.stage, world.cursor.units) == (Stage.NEEDS_OPERATOR, 500)
    world.orders = Orders(advance=Advance(world.cursor.epoch, "stable is gone for good"))
    world.look()
    assert (world.stage, world.cursor.units) == (Stage.BAKING, 10_000)
    world.orders = Orders(advance=Advance(world.cursor.epoch, "there is no way back"))
    assert world.run(5).stage is Stage.PROMOTED


def test_the_candidate_is_not_let_go_before_its_requests_have_ended() -> None:
    world = at_first_step()
    world.orders = Orders(abort="enough")
    world.others["in_flight"] = 3
    world.run(5)
    assert (world.stage, world.cursor.units) == (Stage.ROLLING_BACK, 0)
    world.others["in_flight"] = 0
    world.look()
    assert world.stage is Stage.ROLLED_BACK
    assert not world.decisions[-1].blocks_digest


def test_another_attempt_takes_this_one_back_first() -> None:
    world = at_first_step()
    world.orders = Orders(superseded_by="attempt 8")
    world.run(5)
    assert (world.stage, world.weights()) == (Stage.SUPERSEDED, [500, 0])


def test_after_the_promotion_late_values_may_still_take_it_back_until_the_version_before_is_gone() -> None:
    world = World(
        plan(guardrails={"sales": {"kind": "metric", "centre": 0.1, "tolerated": 0.01}}, retain="1h"), seed=2
    ).run(300)
    assert world.stage is Stage.PROMOTED
    epoch, pi = next((d.cursor.epoch, d.cursor.units / 1e4) for d in world.decisions if d.cursor.units == 5000)
    late = BinnedStage(epoch, pi, (9000, 1000), (9800, 200))
    world.evidence = world.evidence + Evidence(bins={"sales": (late,)})
    for _ in range(3):
        world.pass_time(1.0)
        world.look()
    assert world.stage in (Stage.ROLLING_BACK, Stage.ROLLED_BACK)
    assert (world.cursor.units, world.cursor.cause) == (0, "guardrail")


def test_after_the_retention_nobody_looks_any_more() -> None:
    world = World(plan(retain="1h")).run(300)
    assert world.look().next_look_s is not None
    world.pass_time(3601.0)
    assert world.look().next_look_s is None


def test_a_plan_that_was_changed_does_not_move_the_old_rollout() -> None:
    world = at_first_step()
    world.plan = plan(steps=[10, 50])
    with pytest.raises(ValueError, match="start another rollout"):
        world.look()
