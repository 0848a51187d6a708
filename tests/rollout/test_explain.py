"""Decisions in words, from their stored documents."""

from __future__ import annotations

from gateway.rollout.explain import explain, headline, rows
from tests.support.rollouts import Version, World, plan


def test_a_rollback_is_explained_by_the_guardrail_with_its_numbers_and_its_risk() -> None:
    world = World(plan(), Version(failing=0.05), Version(failing=0.005)).run(60)
    document = next(decision for _, decision in world.records if decision["event"] == "roll_back")
    text = explain(document)
    assert headline(document).startswith("taken back: errors: candidate fails ")
    assert "times as often" in text
    assert "risk of a false alarm < 0.27 %" in text
    assert "worse than tolerated? evidence" in text
    assert "of the 370 needed" in text  # 1 / (0.01 * 0.27)
    for name in world.plan.guardrails:
        assert f"  {name} (rollback): " in text


def test_every_decision_of_a_promotion_has_a_headline_that_says_what_it_did() -> None:
    world = World(plan()).run(300)
    said = [headline(decision) for _, decision in world.records if decision["event"]]
    assert [line.split(":")[0] for line in said] == [
        "loaded, now it is tried before traffic",
        "to its first requests",
        "to the next step",
        "to the next step",
        "to the bake",
        "promoted",
    ]
    assert "shown good by all of errors, latency" in said[-1]


def test_a_hold_is_in_the_headline() -> None:
    world = World(plan(gates=["promote"])).run(200)
    assert "baking at 95 %, held (gate): an operator must open the gate 'promote'" in headline(world.look().as_dict())


def test_the_rows_of_a_table_have_the_outcome_of_each_guardrail() -> None:
    world = World(plan(), Version(failing=0.05)).run(60)
    document = next(decision for _, decision in world.records if decision["event"] == "roll_back")
    outcomes = {row["name"]: row["outcome"] for row in rows(document)}
    assert outcomes["errors"] == "worse"
    assert set(outcomes.values()) <= {"ok", "worse", "undecided", "unknown", "fault"}
