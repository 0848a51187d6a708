"""The promise of the risk budget, kept by whole rollouts of a candidate that is stable's twin, looked at all along."""

from __future__ import annotations

import math

import pytest

from gateway.rollout.phase import Stage
from tests.support.rollouts import Version, World, plan

RISK = 0.1  # ten times the default: so few rollouts would show nothing at 1 %
N_TWINS = 60


@pytest.mark.slow
def test_twins_are_taken_back_within_the_budget_and_all_others_are_promoted() -> None:
    rules = plan(
        risk={"rollback": RISK, "looks": 1},
        steps=[{"weight": w, "min_time": "10s", "max_time": "10min"} for w in (10, 50)],
        guardrails={"errors": {"tolerated": 1.0}, "latency": {"tolerated": 1.0}, "outputs": {"tolerated": 1.0}},
    )
    twin = Version(failing=0.02)
    ended = [
        World(rules, twin, twin, seed=seed, requests_per_s=500, look_s=2.0).run(400).stage for seed in range(N_TWINS)
    ]
    n_back = sum(stage in (Stage.ROLLED_BACK, Stage.ROLLING_BACK) for stage in ended)
    assert n_back <= N_TWINS * RISK + 3 * math.sqrt(N_TWINS * RISK)
    assert ended.count(Stage.PROMOTED) >= 0.8 * N_TWINS


@pytest.mark.slow
def test_a_candidate_at_the_margin_is_hardly_ever_promoted() -> None:
    rules = plan(
        risk={"promote": RISK},
        steps=[{"weight": 50, "min_time": "1s", "max_time": "10min", "min_requests": 1}],
        guardrails={"errors": {"tolerated": 1.99, "negligible": 0.001}, "latency": "off", "outputs": "off"},
    )
    world = [
        World(rules, Version(failing=0.04), Version(failing=0.02), seed=seed, requests_per_s=500, look_s=2.0)
        for seed in range(40)
    ]
    passed = sum(one.run(60, until=lambda world: world.cursor.units > 5000).cursor.units > 5000 for one in world)
    assert passed <= 40 * RISK + 3 * math.sqrt(40 * RISK)
