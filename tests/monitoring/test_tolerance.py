"""E-values are at most 1 on average for whatever is tolerated: by enumeration, not by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.optimize as optimize
import scipy.stats as stats
from hypothesis import given
from hypothesis import strategies as st

from gateway.monitoring import tolerance

SEEDS = st.integers(0, 2**32 - 1)


def kl(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


def on_the_border(rng: np.random.Generator, p: np.ndarray, ball: float) -> np.ndarray:
    """A distribution just inside the ball, in a random direction."""
    while True:
        far = rng.dirichlet(np.full(p.size, rng.choice([0.2, 1.0, 5.0]))) + 1e-9
        far /= far.sum()
        if kl(p, far) > ball:
            break
    w = optimize.brentq(lambda w: kl(p, (1 - w) * far + w * p) - ball, 0.0, 1.0)
    return (1 - w) * far + w * p


@given(SEEDS, st.booleans())
def test_no_tolerated_distribution_makes_evidence_on_average(seed: int, is_ordered: bool) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(rng.integers(2, 9), 2.0)) + 1e-6
    p /= p.sum()
    ball = float(rng.choice([0.01, 0.05, 0.3]))
    ratios = tolerance.log_ratios((tolerance.moves if is_ordered else tolerance.surges)(p), p, ball)
    for _ in range(5):
        q = on_the_border(rng, p, ball)
        assert (np.exp(ratios) @ q).max() <= 1.0 + 1e-8


@given(SEEDS)
def test_the_nearest_tolerated_distribution_is_the_nearest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(4, 3.0)) + 1e-3
    p /= p.sum()
    alternative = rng.dirichlet(np.full(4, 0.5)) + 1e-4
    alternative /= alternative.sum()
    ratios = tolerance.log_ratios(alternative[None], p, 0.02)[0]
    nearest = alternative / np.exp(ratios)
    assert nearest.sum() == pytest.approx(1.0)
    for _ in range(20):
        assert kl(alternative, nearest) <= kl(alternative, on_the_border(rng, p, 0.02)) + 1e-8


def test_over_all_outcomes_of_a_window_the_average_is_at_most_one() -> None:
    p, ball, n = np.array([0.5, 0.3, 0.2]), 0.02, 6
    ratios = tolerance.log_ratios(tolerance.moves(p), p, ball)
    rng = np.random.default_rng(3)
    for q in (p, *(on_the_border(rng, p, ball) for _ in range(10))):
        total = 0.0
        for a, b in itertools.product(range(n + 1), repeat=2):
            if a + b <= n:
                counts = np.array([a, b, n - a - b], float)
                ways = math.factorial(n) / math.prod(math.factorial(int(c)) for c in counts)
                total += ways * float((q**counts).prod()) * math.exp(tolerance.log_e_shape(counts, ratios))
        assert total <= 1.0 + 1e-9


def test_rows_that_are_alike_within_a_request_make_no_evidence() -> None:
    """Requests of 64 equal rows, counted as a request each."""
    rng = np.random.default_rng(4)
    p = np.full(10, 0.1)
    ratios = tolerance.log_ratios(tolerance.moves(p), p, 0.02)
    q = on_the_border(rng, p, 0.02)
    requests = rng.multinomial(50, q, size=20_000).astype(float)
    assert np.exp(tolerance.log_e_shape(requests, ratios)).mean() <= 1.0
    as_rows = tolerance.log_e_shape(64 * requests[:100], ratios)
    assert (as_rows > 20).any()  # what counting rows would have made of it


def test_what_is_beyond_makes_evidence_and_more_with_more_rows() -> None:
    p = np.full(10, 0.1)
    ratios = tolerance.log_ratios(tolerance.moves(p), p, float(tolerance.radius(0.1, 10, 1e9)))
    far = np.array([0.02, 0.03, 0.04, 0.05, 0.08, 0.1, 0.12, 0.16, 0.18, 0.22])
    found = [float(tolerance.log_e_shape(n * far, ratios)) for n in (100, 300, 1000)]
    assert found[0] < found[1] < found[2]
    assert found[2] > 14.0


def test_the_window_before_is_an_alternative_that_finds_what_no_shift_describes() -> None:
    p = np.full(8, 1 / 8)
    ball = float(tolerance.radius(0.1, 8, 1e9))
    odd = np.tile([0.22, 0.03], 4)
    suggested = tolerance.from_window(500 * odd, p)
    learnt = (500 * odd * tolerance.log_ratios(suggested, p, ball)).sum()
    assert learnt > 20.0 > tolerance.log_e_shape(500 * odd, tolerance.log_ratios(tolerance.moves(p), p, ball))


def test_a_small_baseline_tolerates_more() -> None:
    exact, large, small = (float(tolerance.radius(0.1, 10, n0)) for n0 in (1e12, 10_000, 150))
    assert exact == pytest.approx(0.05, rel=1e-3)
    assert exact < large < small


@given(st.integers(1, 300), st.floats(0.001, 0.5))
def test_a_tolerated_rate_makes_no_evidence_on_average(n: int, rate: float) -> None:
    hits = np.arange(n + 1)
    log_es = tolerance.log_e_rate(hits, n, rate)
    for true in (rate, rate / 2):
        assert np.exp(stats.binom.logpmf(hits, n, true) + log_es).sum() <= 1.0 + 1e-6


def test_an_average_leaves_out_parts_that_are_not_there() -> None:
    assert tolerance.log_average(np.log([[2.0, 4.0, np.nan]])) == pytest.approx(math.log(3.0))
    assert tolerance.log_average(np.array([[np.nan, np.nan]])) == 0.0
