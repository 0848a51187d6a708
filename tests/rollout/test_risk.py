"""The promise of the risk budget, kept by whole rollouts of a candidate that is stable's twin, looked at all along."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gateway.evidence import latency
from gateway.evidence.counts import BinnedStage
from gateway.evidence.latency import LatencyQuestion
from gateway.evidence.verdict import Direction, Outcome
from gateway.rollout.baseline import LatencyBaseline
from gateway.rollout.phase import Stage
from tests.support.rollouts import Version, World, plan

RISK = 0.1  # ten times the default: so few rollouts would show nothing at 1 %
N_TWINS = 60
N_WANDERERS = 150


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


@pytest.mark.slow
def test_who_is_slower_by_as_much_as_is_tolerated_is_blamed_within_the_risk_while_stable_wanders() -> None:
    """By the floor where that is more, else by the factor; thresholds are those of the stage before."""
    rng, floor_us, n = np.random.default_rng(7), 1000, 2000
    quantiles = (0.5, 0.9, 0.95, 0.99)
    blamed = [False] * N_WANDERERS
    stages: list[list[BinnedStage]] = [[] for _ in blamed]
    last = rng.lognormal(np.log(2000.0), 0.8, (N_WANDERERS, 500))
    for stage in range(8):
        pi = (0.05, 0.25, 0.5, 0.8)[stage % 4]
        questions = []
        speed = np.exp(rng.normal(0.0, 0.7, N_WANDERERS))
        for one in range(N_WANDERERS):
            thresholds = tuple(int(x) + i for i, x in enumerate(np.quantile(last[one], quantiles)))
            frozen = LatencyBaseline((1.0, 2.0), (1,), thresholds, quantiles)
            limits = frozen.limits(1.1, floor_us)
            all_of_them = speed[one] * rng.lognormal(np.log(2000.0), 0.8, n)
            is_candidate = rng.random(n) < pi
            usual, slower = all_of_them[~is_candidate], all_of_them[is_candidate]
            slower = np.maximum(1.1 * slower, slower + floor_us)
            cells = [
                tuple(np.histogram(values, (-1.0, *cuts, np.inf))[0].tolist())
                for values, cuts in ((usual, thresholds), (slower, limits))
            ]
            stages[one].append(BinnedStage(stage, pi, *cells))
            last[one] = rng.choice(usual, 500)
            ones = (1.0,) * len(quantiles)
            every = tuple(stages[one])
            questions.append(LatencyQuestion(every, thresholds, Direction.ROLLBACK, -math.log(RISK), ones, 1.0, limits))
        for one, verdict in enumerate(latency.judge(questions)):
            blamed[one] |= verdict.outcome is Outcome.WORSE
    assert sum(blamed) <= N_WANDERERS * RISK + 3 * math.sqrt(N_WANDERERS * RISK)
