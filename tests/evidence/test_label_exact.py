"""The label test keeps its promise: computed, not simulated.

Derivation. Let G_t be all that is known before request t is routed, p_b its probability of the event on stable and
p_c = r p_b on the candidate, given G_t; the arm is drawn with pi, independently of everything else. Then
P(event) = p_b (1 - pi + pi r) and P(candidate | event, G_t) = pi r / (1 - pi + pi r) = q(r), whatever p_b is. Without
an event E does not move. With one, an alternative's ratio is multiplied by q(r_j)/q(r_0) or (1-q(r_j))/(1-q(r_0)); its
mean under q = q(r) is 1 + (q - q_0)(q_j - q_0)/(q_0 (1 - q_0)), at most 1 if q <= q_0 < q_j (or q >= q_0 > q_j). So
each ratio, and every fixed mixture of ratios and of starts, is a non-negative supermartingale that begins at 1 or less.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import label, limit
from gateway.evidence.counts import Stage
from gateway.evidence.likelihood import FULL_WEIGHT, LOG_WEIGHTS
from gateway.evidence.verdict import Direction, log_threshold_of

pytest.importorskip("mpmath")
from tests.evidence import twins

T = log_threshold_of(0.05)
BOTH = (Direction.ROLLBACK, Direction.PROMOTE)


def stages_of(rows: list[tuple[float, int, int]]) -> list[Stage]:
    """(pi, events, candidate's) as stages with index 0, 1, ..; requests do not matter here."""
    return [Stage(i, pi, n - k, k, n - k, k) for i, (pi, n, k) in enumerate(rows)]


def e_of(rows: list[tuple[float, int, int]], r0: float, direction: Direction) -> float:
    stages = stages_of(rows)
    ask = (
        label.rollback(stages, T, tolerated=r0)
        if direction is Direction.ROLLBACK
        else label.promote(stages, T, margin=r0)
    )
    return math.exp(ask.log_e)


ROWS = st.lists(st.tuples(st.floats(0.001, 0.999), st.integers(0, 400), st.floats(0, 1)), min_size=1, max_size=5)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.sampled_from([0.5, 1.0, 1.1, 2.0]), st.sampled_from(BOTH))
def test_evidence_is_its_definition(rows: list[tuple[float, int, float]], r0: float, direction: Direction) -> None:
    counted = [(pi, n, round(n * share)) for pi, n, share in rows]
    expected = float(twins.label(counted, r0, direction is Direction.ROLLBACK))
    assert label.log_e(stages_of(counted), r0, direction) == pytest.approx(expected, rel=1e-11, abs=1e-10)


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("r0", [0.7, 1.0, 1.5])
def test_mean_evidence_is_at_most_one_under_every_null(r0: float, direction: Direction) -> None:
    # three stages with restarts; each stage has a relative risk of its own within the null
    pis, ns = (0.01, 0.3, 0.6), (5, 6, 5)
    inside = (1.0, 0.6, 0.2) if direction is Direction.ROLLBACK else (1.0, 1.7, 9.0)
    e = {ks: e_of(list(zip(pis, ns, ks, strict=True)), r0, direction) for ks, _ in twins.outcomes(ns, (0.5,) * 3)}
    worst = 0.0
    for factors in itertools.product(inside, repeat=3):
        qs = [twins.share_of_candidate(pi, r0 * f) for pi, f in zip(pis, factors, strict=True)]
        mean = sum(p * e[ks] for ks, p in twins.outcomes(ns, qs))
        assert mean <= 1.0 + 1e-12
        worst = max(worst, mean)
    # the bound is met on the edge of the null, but for the mass kept for stages to come
    full = FULL_WEIGHT + (1 - FULL_WEIGHT) * (1 / 2 + 1 / 6) if direction is Direction.ROLLBACK else 1.0
    assert worst == pytest.approx(full, rel=1e-9)


@pytest.mark.parametrize("direction", BOTH)
@pytest.mark.parametrize("pi", [1e-6, 0.1, 0.5, 0.97])
def test_one_more_event_raises_the_mean_at_no_state(pi: float, direction: Direction) -> None:
    q0 = twins.share_of_candidate(pi, 1.0)
    for n in range(0, 30, 3):
        for k in range(n + 1):
            now, more, less = (
                math.exp(label.log_e(stages_of([(pi, n + i, k + j)]), 1.0, direction))
                for i, j in ((0, 0), (1, 1), (1, 0))
            )
            for share in (0.0, 0.5, 1.0):
                q = q0 * share if direction is Direction.ROLLBACK else 1 - (1 - q0) * share
                assert q * more + (1 - q) * less <= now * (1 + 1e-11)


@pytest.mark.parametrize("pi", [0.05, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_risk_of_ever_firing_is_below_alpha(pi: float, alpha: float) -> None:
    threshold = log_threshold_of(alpha)
    n = 250
    least = {}
    questions = [
        label.Question(tuple(stages_of([(pi, m, k)])), Direction.ROLLBACK, 1.0, threshold)
        for m in range(1, n + 1)
        for k in range(m + 1)
        if k / m > pi
    ]
    labels, log_r0, above = label.arrays(questions)
    log_es, _ = label.log_e_with_restarts(labels, log_r0, above, above)
    for question, log_e in zip(questions, log_es, strict=True):
        stage = question.stages[0]
        if log_e >= threshold:
            least[stage.k] = min(least.get(stage.k, stage.k + 1), stage.k_candidate)
    rng = np.random.default_rng(5)
    for q in ([pi] * n, list(pi * rng.random(n))):
        risk = twins.probability_of_ever(lambda k, m: k >= least.get(m, m + 1), n, q)
        assert 0.0 < risk <= alpha or (q[0] != pi and risk <= alpha)


@pytest.mark.parametrize("phi", [1.0, 2.0])
def test_with_a_negligible_share_evidence_is_the_mean_of_both_tests(phi: float) -> None:
    stages = [Stage(0, 0.3, 700, 300, 6, 3), Stage(1, 0.5, 500, 500, 2, 4)]
    of_label = label.promote(stages, T, margin=3.0, phi=phi).log_e
    of_share = limit.log_e_below(7 / phi, 800 / phi, 0.02)
    both = label.promote(stages, T, margin=3.0, negligible=0.02, phi=phi).log_e
    assert math.exp(both) == pytest.approx((math.exp(of_label) + math.exp(of_share)) / 2, rel=1e-12)


@pytest.mark.parametrize(("p_stable", "p_candidate"), [(0.2, 0.4), (0.15, 0.6), (0.05, 0.3)])
def test_mean_evidence_with_a_negligible_share_is_at_most_one_under_its_null(
    p_stable: float, p_candidate: float
) -> None:
    # H0: twice as often or more, and in at least 0.3 of the candidate's requests; all tallies of eight requests
    n, pi = 8, 0.4
    cells = ((1 - pi) * (1 - p_stable), (1 - pi) * p_stable, pi * (1 - p_candidate), pi * p_candidate)
    mean = 0.0
    for b, kb, c in itertools.product(range(n + 1), repeat=3):
        kc = n - b - kb - c
        if kc >= 0:
            ways = math.factorial(n) // math.prod(map(math.factorial, (b, kb, c, kc)))
            p = ways * math.prod(q**m for q, m in zip(cells, (b, kb, c, kc), strict=True))
            stage = Stage(0, pi, b + kb, c + kc, kb, kc)
            mean += p * math.exp(label.promote([stage], T, margin=2.0, negligible=0.3).log_e)
    assert mean <= 1.0 + 1e-12
    assert mean > 0.4


def test_alternatives_weigh_one_together() -> None:
    assert float(np.sum(np.exp(LOG_WEIGHTS))) == pytest.approx(1.0, abs=1e-14)


def test_evidence_on_bursts_is_valid_when_divided_by_the_largest() -> None:
    # bursts of 1, 2 or 3 events that share one label: the mean over the label, burst by burst
    pi, r0 = 0.3, 1.0
    q = twins.share_of_candidate(pi, r0)
    for sizes in ((3, 3, 2), (1, 3, 3, 1), (3,) * 6):
        plain = tempered = 0.0
        for labels in itertools.product((0, 1), repeat=len(sizes)):
            p = math.prod(q if x else 1 - q for x in labels)
            k, n = sum(m for m, x in zip(sizes, labels, strict=True) if x), sum(sizes)
            stage = Stage(0, pi, n - k, k, n - k, k)
            plain += p * math.exp(label.rollback([stage], T).log_e)
            tempered += p * math.exp(label.rollback([stage], T, phi=3.0).log_e)
        assert tempered <= 1.0
        assert plain > 1.0


@settings(max_examples=60, deadline=None)
@given(ROWS, st.floats(0.2, 5.0))
def test_evidence_falls_with_what_is_tolerated(rows: list[tuple[float, int, float]], r0: float) -> None:
    stages = stages_of([(pi, n, round(n * share)) for pi, n, share in rows])
    low, high = (label.log_e(stages, r, Direction.ROLLBACK) for r in (r0, r0 * 1.01))
    assert high <= low + 1e-9
    low, high = (label.log_e(stages, r, Direction.PROMOTE) for r in (r0, r0 * 1.01))
    assert high >= low - 1e-9


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_interval_is_where_neither_test_rejects(rows: list[tuple[float, int, float]]) -> None:
    stages = stages_of([(pi, n, round(n * share)) for pi, n, share in rows])
    low, high = label.interval(stages, T)
    assert low <= high
    if low > 0:
        assert label.log_e(stages, low, Direction.ROLLBACK) >= T - 1e-9
        assert label.log_e(stages, low * 1.2, Direction.ROLLBACK) < T or low * 1.2 > high / 1.2
    if high < math.inf:
        assert label.log_e(stages, high, Direction.PROMOTE) >= T - 1e-9


def test_interval_closes_in_with_the_number_of_events() -> None:
    # a mixture without alternatives near the null could never get within 2.4 % of the truth
    widths = []
    for n in (10**4, 10**6, 10**8, 10**10, 10**12):
        low, high = label.interval([Stage(0, 0.5, n, n, n // 2, n // 2)], T)
        assert low < 1.0 < high
        widths.append(math.log(high / low))
    ratios = [a / b for a, b in itertools.pairwise(widths)]
    assert all(8.0 < ratio < 10.5 for ratio in ratios), ratios
