"""Latency is counted at thresholds that stable's answers gave. When stable is elsewhere by now they are taken anew, and
neither a stall before the start nor a rush hour makes a rollout blind, or holds it for ever.
"""

from __future__ import annotations

import pytest

from gateway.rollout.phase import Hold, Stage
from gateway.rollout.snapshot import Orders
from tests.support.rollouts import Version, World, plan

STEPS = [{"weight": 50, "min_time": "20s", "max_time": "10min"}]


def begun(times: float, **changes: object) -> World:
    """At half of the requests, all of which take so many times as long from now on."""
    world = World(plan(**{"steps": STEPS, **changes}))
    world.run(30, until=lambda world: world.stage is Stage.STEP and world.cursor.acknowledged_s is not None)
    world.times = times
    return world


@pytest.mark.parametrize("times", [0.02, 50.0])
def test_a_good_candidate_is_promoted_whatever_stable_was_at_when_its_thresholds_were_taken(times: float) -> None:
    world = begun(times).run(300)
    assert world.stage is Stage.PROMOTED
    taken = [each for each in world.decisions if any("new thresholds" in reason for reason in each.reasons)]
    assert len(taken) == 1
    assert f"{50} % of stable's answers take up to" in next(r for r in taken[0].reasons if "new thresholds" in r)


@pytest.mark.parametrize("times", [0.2, 50.0])
def test_a_slow_candidate_is_taken_back_whatever_stable_was_at_when_its_thresholds_were_taken(times: float) -> None:
    world = World(plan(steps=STEPS), Version(slowdown=20.0))
    world.times = times  # from the first request on: nothing is ever counted where the thresholds were taken
    world.run(100)
    assert world.stage is Stage.ROLLED_BACK
    assert world.cursor.reason.startswith("latency: ")


def test_new_thresholds_are_an_epoch_of_the_same_weight_and_the_clock_of_the_step_goes_on() -> None:
    world = begun(50.0)
    before = world.cursor
    world.run(5, until=lambda world: world.cursor.epoch > before.epoch)
    after = world.cursor
    assert (after.epoch, after.units, after.step) == (before.epoch + 1, before.units, before.step)
    world.run(2)
    assert (world.cursor.not_before_s, world.cursor.deadline_s) == (before.not_before_s, before.deadline_s)
    assert world.baseline.latency_at(before.epoch) == world.baseline.latency
    assert world.baseline.latency_at(after.epoch) != world.baseline.latency


def test_what_was_shown_before_stays_and_stable_that_is_where_it_was_has_no_new_epoch() -> None:
    world = begun(1.3).run(10)
    assert world.cursor.epoch == 1
    world.times = 50.0
    world.run(3)
    assert world.cursor.epoch == 2
    assert {stage.index for stage in world.evidence.bins["latency"]} == {1, 2}


def test_a_stable_whose_speed_keeps_changing_has_new_thresholds_ever_more_seldom() -> None:
    world = begun(50.0, steps=[{"weight": 50, "min_time": "9min", "max_time": "10min"}])
    for turn in range(500):
        world.times = 1.0 if turn // 10 % 2 else 50.0
        world.run(1)
    assert 2 <= world.cursor.epoch <= 12  # each takes twice as many answers as the one before: 200, 400, ... 200,000


@pytest.mark.parametrize(
    ("field", "value"),
    [("evidence_age_s", None), ("evidence_fault", "a hole"), ("route_fault", "somebody else's")],
)
def test_nothing_is_built_on_evidence_that_cannot_be_relied_on(field: str, value: object) -> None:
    world = begun(50.0)
    world.others[field] = value
    world.run(10)
    assert world.cursor.epoch == 1
    del world.others[field]
    world.run(3)
    assert world.cursor.epoch == 2


def test_a_paused_rollout_is_not_blind_either() -> None:
    world = begun(50.0)
    world.orders = Orders(is_paused=True)
    world.run(5)
    assert (world.cursor.epoch, world.cursor.holds[0][0]) == (2, Hold.MANUAL)


def test_each_step_has_the_thresholds_of_the_one_before() -> None:
    world = World(plan()).run(300)
    assert world.stage is Stage.PROMOTED
    assert [epoch for epoch, _ in world.baseline.later] == [2, 3, 4]
