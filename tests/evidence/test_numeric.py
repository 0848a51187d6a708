"""Special functions: equal to 50-digit arithmetic on the definitions, at all sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence.numeric import (
    log_beta_binomial,
    log_beta_binomial_above,
    log_beta_binomial_below,
    log_mean_exp,
    log_sum_exp,
    stirling_remainder,
)

mp = pytest.importorskip("mpmath")
from tests.evidence import twins  # noqa: E402

QS = (1e-12, 1e-3, 0.1, 0.5, 0.99)


def spread_of(n: int, q: float, deviations: float) -> int:
    return min(n, max(0, round(n * q + deviations * math.sqrt(n * q * (1 - q)))))


@pytest.mark.parametrize("q", QS)
@pytest.mark.parametrize("n", [0, 1, 7, 1000, 10**6, 10**12])
def test_beta_binomial_is_its_definition(q: float, n: int) -> None:
    for c in (0.5, 8.0, 1000.0):
        for deviations in (-1e9, -5.0, 0.0, 1.0, 40.0, 1e9):
            s = spread_of(n, q, deviations)
            assert float(log_beta_binomial(s, n, q, c)) == pytest.approx(
                float(twins.beta_binomial(s, n, q, c)), rel=2e-9, abs=2e-9
            )


@pytest.mark.parametrize("q", [0.1, 0.5])
@pytest.mark.parametrize("n", [0, 7, 1000, 10**6])
def test_one_sided_beta_binomial_is_the_mixture_over_larger_shares(q: float, n: int) -> None:
    for c in (2.0, 100.0):
        for deviations in (-7.0, -2.0, 4.0):
            s = spread_of(n, q, deviations)
            assert float(log_beta_binomial_above(s, n, q, c)) == pytest.approx(
                float(twins.beta_binomial_above(s, n, q, c)), rel=1e-8, abs=1e-8
            )


@pytest.mark.parametrize("n", [10**9, 10**12])
@pytest.mark.parametrize("q", [1e-6, 0.02, 0.5])
def test_the_two_ways_to_a_small_tail_meet(n: int, q: float) -> None:
    # the tail is 1e-8 at 5.6 deviations: both sides of the switch, where the function is smooth
    values = [float(log_beta_binomial_above(spread_of(n, q, z), n, q, 8.0)) for z in np.linspace(-6.6, -4.6, 21)]
    second = np.diff(values, 2)
    assert np.all(np.diff(values) > 0)
    assert np.max(np.abs(second)) < 0.01


def test_below_mirrors_above() -> None:
    assert float(log_beta_binomial_below(3, 50, 0.25, 8.0)) == float(log_beta_binomial_above(47, 50, 0.75, 8.0))


@given(st.floats(1e-9, 1e15))
def test_stirlings_remainder_is_what_is_missing(z: float) -> None:
    exact = mp.loggamma(z) - ((mp.mpf(z) - 0.5) * mp.log(z) - z + mp.log(2 * mp.pi) / 2)
    assert float(stirling_remainder(z)) == pytest.approx(float(exact), rel=1e-12, abs=1e-14)


def test_conditional_probabilities_of_the_mixture_sum_to_one() -> None:
    # a mixture of Bernoulli sequences is a distribution: its density times the null's, summed over all outcomes, is 1
    for q, c in ((0.3, 2.0), (0.01, 50.0)):
        e = np.exp(log_beta_binomial(np.arange(41), 40, q, c))
        assert float(np.sum(e * scipy.stats.binom.pmf(np.arange(41), 40, q))) == pytest.approx(1.0, rel=1e-12)
    betabinom = scipy.stats.betabinom(40, 2.0 * 0.3, 2.0 * 0.7).pmf(np.arange(41))
    e = np.exp(log_beta_binomial(np.arange(41), 40, 0.3, 2.0))
    assert np.allclose(e * scipy.stats.binom.pmf(np.arange(41), 40, 0.3), betabinom, rtol=1e-12)


@given(st.integers(0, 10**12), st.floats(0, 1), st.floats(1e-15, 1 - 1e-15), st.floats(0.1, 1e5))
def test_evidence_is_a_number_at_every_size(n: int, share: float, q: float, c: float) -> None:
    s = min(n, round(share * n))
    for function in (log_beta_binomial, log_beta_binomial_above, log_beta_binomial_below):
        assert math.isfinite(float(function(s, n, q, c))), function


@given(st.lists(st.tuples(st.integers(0, 10**9), st.floats(0, 1)), min_size=1, max_size=9))
def test_an_elements_bits_do_not_depend_on_its_neighbours(pairs: list[tuple[int, float]]) -> None:
    n = np.array([n for n, _ in pairs])
    s = np.array([min(n, round(n * share)) for n, share in pairs])
    together = log_beta_binomial_above(s, n, 0.1, 8.0)
    assert [float(x) for x in together] == [
        float(log_beta_binomial_above(int(a), int(b), 0.1, 8.0)) for a, b in zip(s, n, strict=True)
    ]


def test_sums_of_nothing_and_of_everything() -> None:
    assert float(log_sum_exp(np.array([-np.inf, -np.inf]))) == -math.inf
    assert float(log_sum_exp(np.array([-np.inf, 3.0]))) == 3.0
    assert float(log_sum_exp(np.array([1e5, 1e5]))) == pytest.approx(1e5 + math.log(2))
    assert float(log_mean_exp(np.array([-1e5, -1e5]))) == pytest.approx(-1e5)
