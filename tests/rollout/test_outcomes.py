"""Whole rollouts in a small world: who is promoted, who is taken back, and what it says then."""

from __future__ import annotations

import pytest

from gateway.rollout.phase import Event, Health, Stage
from gateway.rollout.replay import replay
from tests.support.rollouts import Version, World, plan


def test_a_candidate_that_is_as_good_is_promoted_step_by_step() -> None:
    world = World(plan()).run(300)
    assert world.stage is Stage.PROMOTED
    assert world.weights() == [500, 2500, 5000, 9500, 10_000]


def test_a_service_that_fails_now_and_then_is_promoted_too() -> None:
    world = World(plan(), Version(failing=0.01), Version(failing=0.01)).run(600)
    assert world.stage is Stage.PROMOTED


@pytest.mark.parametrize(
    ("candidate", "guardrail"),
    [
        (Version(failing=0.03), "errors"),
        (Version(slowdown=1.6), "latency"),
        (Version(outputs=(0.1, 0.2, 0.3, 0.4)), "outputs"),
    ],
)
def test_a_worse_candidate_is_taken_back_at_the_first_step_and_says_why(candidate: Version, guardrail: str) -> None:
    world = World(plan(), candidate, Version(failing=0.001)).run(120)
    assert world.stage is Stage.ROLLED_BACK
    assert world.weights() == [500, 0]
    back = next(decision for decision in world.decisions if decision.event is Event.ROLL_BACK)
    assert back.health is Health.BAD_SOFT
    assert back.cursor.cause == "guardrail"
    assert back.cursor.reason.startswith(f"{guardrail}: ")
    assert "risk of a false alarm" in back.cursor.reason
    assert world.decisions[-1].blocks_digest


def test_a_candidate_that_answers_nan_is_taken_back_on_sight() -> None:
    world = World(plan(), Version(broken=0.5)).run(60)
    back = next(decision for decision in world.decisions if decision.event is Event.ROLL_BACK)
    assert (world.stage, back.health, back.cursor.cause) == (Stage.ROLLED_BACK, Health.BAD_HARD, "fact")
    assert world.n_harmed < 100


def test_a_candidate_that_goes_bad_late_is_taken_back_from_the_bake() -> None:
    world = World(plan(bake={"time": "1min"})).run(200, until=lambda world: world.stage is Stage.BAKING)
    world.candidate = Version(failing=0.05)
    world.run(60)
    assert (world.stage, world.weights()[-1]) == (Stage.ROLLED_BACK, 0)


def test_the_shadow_comes_first_and_its_copies_end_with_it() -> None:
    world = World(plan(strategy=["shadow", "canary"], shadow={"min_time": "10s", "max_time": "1min"})).run(300)
    stages = [decision.cursor.stage for decision in world.decisions if decision.event]
    assert stages[:3] == [Stage.WARMING, Stage.SHADOW, Stage.STEP]
    assert world.stage is Stage.PROMOTED
    assert [d.cursor.shadow_units for d in world.decisions if d.event][1:3] == [1000, 0]


def test_a_shadow_without_pairs_goes_nowhere() -> None:
    world = World(plan(strategy=["shadow", "canary"]), requests_per_s=0).run(100)
    assert world.stage is Stage.SHADOW
    assert any("0 of 200 shadow pairs" in reason for reason in world.look().reasons)


def test_blue_green_waits_for_an_operator_then_bakes_alone() -> None:
    world = World(plan(strategy="blue_green"), look_s=1.0).run(60)
    assert world.stage is Stage.WARMING
    world.orders = type(world.orders)(opened=("traffic",))
    world.run(120)
    assert world.stage is Stage.PROMOTED
    assert world.weights() == [10_000]


def test_blue_green_that_fails_is_held_against_what_stable_was_and_taken_back() -> None:
    world = World(plan(strategy="blue_green", gates=[]), Version(failing=0.05)).run(60)
    assert (world.stage, world.weights()) == (Stage.ROLLED_BACK, [10_000, 0])
    assert "no stable beside it" in world.cursor.reason


def test_replaying_a_rollout_gives_every_decision_again() -> None:
    world = World(plan(), Version(failing=0.03), Version(failing=0.01), seed=5).run(300)
    assert len(world.records) > 4
    assert replay(world.plan, world.records) == []


def test_replaying_a_record_that_was_changed_says_where() -> None:
    world = World(plan(), Version(failing=0.03)).run(120)
    snapshot, _ = world.records[-3]
    snapshot["evidence"]["labels"]["errors"][0]["k_candidate"] += 1
    assert any(difference.path.startswith("guardrails[0]") for difference in replay(world.plan, world.records))


def test_replaying_a_record_with_a_decision_cut_out_says_so() -> None:
    world = World(plan()).run(300)
    moves = [i for i, (_, decision) in enumerate(world.records) if decision["event"] == "next_step"]
    del world.records[moves[0]]
    assert any(difference.path.startswith("snapshot.cursor") for difference in replay(world.plan, world.records))
