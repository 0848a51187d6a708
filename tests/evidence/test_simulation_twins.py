"""The simulation's vectorised formulas give what gateway.evidence gives, on thousands of random counts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bench.judge import twins
from gateway.evidence import betting, distribution, fairness, label, mean
from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.fairness import Stratum
from gateway.evidence.mean import Moments, MomentStage
from gateway.evidence.verdict import Direction, Outcome

LOG_20 = math.log(20)


def rollouts(rng: np.random.Generator, pis: list[float], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Events and the candidate's, by rollout and stage, from none to thousands."""
    n = rng.poisson(10.0 ** rng.uniform(-1, 3.3, (size, len(pis))))
    return rng.binomial(n, np.clip(np.array(pis) * rng.uniform(0.3, 3.0, (size, 1)), 0, 1)), n


def stages_of(pis: list[float], k: np.ndarray, n: np.ndarray) -> list[Stage]:
    many = 10**6
    return [
        Stage(i, pi, many, many, int(n[i] - k[i]), int(k[i])) for i, pi in enumerate(pis)
    ]  # only events matter, not requests


@pytest.mark.parametrize("pis", [[0.1], [0.5], [0.01, 0.05, 0.25, 0.5]])
@pytest.mark.parametrize("risk", [1.0, 1.3])
def test_label_rollback(pis: list[float], risk: float) -> None:
    k, n = rollouts(np.random.default_rng(1), pis, 1500)
    ours = twins.LabelTest(pis, risk).log_e(k, n)
    questions = [
        label.Question(tuple(stages_of(pis, *counts)), Direction.ROLLBACK, risk, LOG_20)
        for counts in zip(k, n, strict=True)
    ]
    theirs = [verdict.log_e for verdict in label.judge(questions)]
    told = n.sum(axis=1) > 0
    np.testing.assert_allclose(ours[told], np.array(theirs)[told], atol=1e-8)


def test_label_promotion() -> None:
    pis = [0.05, 0.5]
    k, n = rollouts(np.random.default_rng(2), pis, 1500)
    ours = twins.LabelTest(pis, 1.5, upwards=False).log_e(k, n)
    theirs = [label.log_e(stages_of(pis, *counts), 1.5, Direction.PROMOTE) for counts in zip(k, n, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_label_with_counts_over_phi() -> None:
    k, n = rollouts(np.random.default_rng(3), [0.1], 800)
    ours = twins.LabelTest([0.1], phi=3.0).log_e(k, n)
    questions = [
        label.Question(tuple(stages_of([0.1], *counts)), Direction.ROLLBACK, 1.0, LOG_20, phi=3.0)
        for counts in zip(k, n, strict=True)
    ]
    told = n[:, 0] > 0
    np.testing.assert_allclose(ours[told], np.array([v.log_e for v in label.judge(questions)])[told], atol=1e-8)


@pytest.mark.parametrize(("r0", "direction"), [(1.0, Direction.ROLLBACK), (2.0, Direction.PROMOTE)])
def test_boundaries_are_where_the_verdict_changes(r0: float, direction: Direction) -> None:
    boundary = twins.label_boundary(0.2, r0, direction is Direction.ROLLBACK, 300, LOG_20)
    decisive = Outcome.WORSE if direction is Direction.ROLLBACK else Outcome.OK
    inward = 1 if direction is Direction.ROLLBACK else -1
    for n in range(1, 301):
        last = int(boundary[n])
        for k, expected in ((last, True), (last - inward, False)):
            if 0 <= k <= n:
                stages = (Stage(0, 0.2, 10**6, 10**6, n - k, k),)
                (verdict,) = label.judge([label.Question(stages, direction, r0, LOG_20)])
                assert (verdict.outcome is decisive) is expected


def test_betting() -> None:
    rng = np.random.default_rng(4)
    counts = rng.poisson(10.0 ** rng.uniform(-1, 3, (1000, 1, 1)) * rng.random((1000, 2, 8)))
    ours = twins.betting_log_e(counts.astype(float), 0.1, 0.3, 0.02)
    theirs = [
        betting.log_e([BinnedStage(0, 0.1, tuple(s), tuple(c))], betting.Metric(0.3), 0.02, Direction.ROLLBACK)
        for s, c in counts.tolist()
    ]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-8)


def test_mean() -> None:
    rng = np.random.default_rng(5)
    metric = mean.Metric(centre=0.0, unit=1.0, deviation=900.0, skewness=2.0)
    theirs, table = [], []
    for _ in range(500):
        arms = [np.rint(rng.gamma(1.0, 900.0, rng.integers(50, 3000))).astype(int).tolist() for _ in range(2)]
        stable, candidate = (Moments(len(a), sum(a), sum(v * v for v in a)) for a in arms)
        stages = [MomentStage(0, stable, candidate)]
        theirs.append(mean.log_e_with_restarts(stages, metric, LOG_20, 0.0, Direction.ROLLBACK).log_e)
        table.append([(a.n, a.total, a.squares) for a in (stable, candidate)])
    n, total, squares = np.moveaxis(np.array(table, float), -1, 0)
    ours = twins.mean_log_e(n, total, squares, LOG_20, 500 * 900.0**2, metric.skewness)
    assert np.count_nonzero(theirs) > 100
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_distribution() -> None:
    rng = np.random.default_rng(6)
    both = rng.poisson(10.0 ** rng.uniform(0, 3, (300, 1)) * rng.random((300, 16)))
    hits = rng.binomial(both, np.clip(0.1 * rng.uniform(0.5, 2, both.shape), 0, 1))
    ours = twins.distribution_log_e(hits.astype(float), both.astype(float), 0.1)
    theirs = [
        distribution.log_e_equal([BinnedStage(0, 0.1, tuple((b - h).tolist()), tuple(h.tolist()))])
        for h, b in zip(hits, both, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


def test_fairness() -> None:
    rng = np.random.default_rng(7)
    n = rng.integers(200, 5000, (1000, 2))
    k = rng.binomial(n, rng.uniform(0.02, 0.4, (1000, 2)))
    ours = twins.gap_log_e(n.astype(float), k.astype(float), 0.05, LOG_20, mean.LEAST_VALUES, fairness.LEAST_EVENTS)
    theirs = [
        fairness.log_e_gap_above([Stratum(0, int(a[0]), int(b[0]), int(a[1]), int(b[1]))], 0.05, LOG_20)
        for a, b in zip(n, k, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-8)
