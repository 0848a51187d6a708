"""Means without bounds: the mixture against quadrature, the moments against NumPy, and what may not sway the test."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from gateway.evidence import mean
from gateway.evidence.counts import CountError
from gateway.evidence.mean import Moments, MomentStage
from gateway.evidence.verdict import Direction, Outcome

METRIC = mean.Metric(centre=10.0, unit=0.001, deviation=2.0, skewness=0.0, name="mean latency")
STRICT, LOOSE = math.log(100), math.log(20)


def arm(values: np.ndarray, metric: mean.Metric = METRIC) -> Moments:
    z = [metric.quantise(value) for value in values.tolist()]
    return Moments(len(z), sum(z), sum(v * v for v in z))


def stage(index: int, stable: np.ndarray, candidate: np.ndarray) -> MomentStage:
    return MomentStage(index, arm(stable), arm(candidate))


def normal(seed: int, n: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(10.0 + shift, 2.0, n)


@pytest.mark.parametrize("s", [-40.0, -3.0, 0.0, 0.5, 4.0, 30.0])
@pytest.mark.parametrize("q", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("rho", [0.2, 7.0])
def test_the_normal_mixture_is_its_integral(s: float, q: float, rho: float) -> None:
    top = max(s, 0.0) / (q + rho)  # where the exponent is largest
    peak = top * s / 2.0

    def integrand(t: float) -> float:
        return 2.0 * math.sqrt(rho / (2.0 * math.pi)) * math.exp(t * s - t * t * (q + rho) / 2.0 - peak)

    edges = [0.0, *(top + k / math.sqrt(q + rho) for k in (0.5, 2.0, 8.0, 30.0))]
    whole = sum(integrate.quad(integrand, a, b, epsabs=0, limit=200)[0] for a, b in itertools.pairwise(edges))
    log_e = float(mean.log_normal_mixture(np.array(s), np.array(q), rho))
    assert log_e == pytest.approx(math.log(whole) + peak, abs=1e-7)


@given(st.lists(st.floats(-8, 8), min_size=1, max_size=5), st.floats(0.1, 9.0))
def test_with_normal_steps_the_mixture_has_mean_one_after_every_past(past: list[float], rho: float) -> None:
    """The martingale property, step by step: the mean over the next normal step is the value before it."""
    s, q = math.fsum(past), float(len(past))
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    after = np.exp(mean.log_normal_mixture(s + nodes, np.full(80, q + 1.0), rho))
    before = math.exp(float(mean.log_normal_mixture(np.array(s), np.array(q), rho)))
    assert float(weights @ after) / math.sqrt(2.0 * math.pi) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("log_threshold", [1.0, 3.0, 7.0, 100.0, 2000.0])
def test_the_precision_makes_the_mixture_tightest_where_planned(log_threshold: float) -> None:
    """Two-sided radius at time q: sqrt((q + rho)(ln(1 + q/rho) + 2 ln(1/a))); rho = planned / k minimises it."""
    planned = 500.0
    log_inverse_a = max(log_threshold - math.log(2.0), math.log(2.0))

    def radius(rho: float) -> float:
        return (planned + rho) * (math.log1p(planned / rho) + 2.0 * log_inverse_a)

    rho = mean.mixture_precision(log_threshold, planned)
    assert radius(rho) <= min(radius(rho * 0.97), radius(rho * 1.03)) + 1e-9 * radius(rho)


def test_one_stage_has_the_published_radius() -> None:
    """Waudby-Smith et al.: V sqrt((v + r)(ln(1 + v/r) + 2 ln(1/a))), v = 1/V, with their r in units of information."""
    stable, candidate = normal(1, 5000), normal(2, 600, 0.3)
    (low, high) = mean.interval([stage(0, stable, candidate)], METRIC, LOOSE) or (0.0, 0.0)
    v = stable.var(ddof=1) / 5000 + candidate.var(ddof=1) / 600
    pairs = 5000 * 600 / 5600
    rho = mean.mixture_precision(LOOSE, METRIC.planned_pairs * 4.0) / (pairs * v) ** 2
    radius = v * math.sqrt((1 / v + rho) * (math.log1p(1 / v / rho) + 2 * math.log(10)))
    assert (low + high) / 2 == pytest.approx(candidate.mean() - stable.mean(), abs=1e-4)
    assert (high - low) / 2 == pytest.approx(radius, rel=1e-4)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=30))
def test_the_variance_is_exact(z: list[int]) -> None:
    moments = Moments(len(z), sum(z), sum(v * v for v in z))
    n, centre = len(z), Fraction(sum(z), len(z))
    exact = sum((v - centre) ** 2 for v in z) / (n - 1) / n
    assert moments.variance_of_mean == float(exact)


def test_a_common_jump_between_stages_is_no_evidence_though_pooling_would_see_one() -> None:
    calm = stage(0, normal(3, 40_000), normal(4, 1000))
    rush = stage(1, normal(5, 20_000, 5.0), normal(6, 20_000, 5.0))
    staged = mean.log_e_with_restarts([calm, rush], METRIC, STRICT, 0.0, Direction.ROLLBACK).log_e
    pooled = MomentStage(0, calm.stable + rush.stable, calm.candidate + rush.candidate)
    assert staged < 1.0
    assert mean.log_e_with_restarts([pooled], METRIC, STRICT, 0.0, Direction.ROLLBACK).log_e > 1000.0


def test_a_slower_candidate_is_worse_and_a_quicker_one_is_not() -> None:
    stable = normal(7, 20_000)
    worse = mean.rollback([stage(0, stable, normal(8, 3000, 0.4))], METRIC, STRICT)
    better = mean.rollback([stage(0, stable, normal(8, 3000, -0.4))], METRIC, STRICT)
    assert (worse.outcome, better.outcome) == (Outcome.WORSE, Outcome.UNDECIDED)
    assert worse.effect == pytest.approx(0.4, abs=0.15)
    assert worse.interval is not None
    assert worse.interval[0] > 0.0
    assert worse.sentence.startswith("candidate's mean latency is 0.")
    assert worse.sentence.endswith(" above stable's in 23,000 requests; risk of a false alarm < 1 %")


def test_a_candidate_that_is_not_worse_by_the_margin_is_promoted() -> None:
    stages = [stage(0, normal(9, 20_000), normal(10, 5000))]
    assert mean.promote(stages, METRIC, LOOSE, margin=0.5).outcome is Outcome.OK
    assert mean.promote(stages, METRIC, LOOSE, margin=0.01).outcome is Outcome.UNDECIDED


def test_a_candidate_that_goes_bad_late_is_found_in_spite_of_a_long_good_time() -> None:
    good = [stage(i, normal(20 + i, 20_000), normal(30 + i, 20_000, -0.5)) for i in range(3)]
    bad = stage(3, normal(40, 5000), normal(41, 5000, 0.5))
    verdict = mean.rollback([*good, bad], METRIC, STRICT)
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence.startswith("since stage 3, candidate's mean latency is 0.")


def test_before_the_burn_in_nothing_is_known() -> None:
    verdict = mean.rollback([stage(0, normal(11, 5000), normal(12, 299, 50.0))], METRIC, LOOSE)
    assert (verdict.outcome, verdict.log_e, verdict.effect) == (Outcome.UNKNOWN, 0.0, None)


@pytest.mark.parametrize(
    ("skewness", "toward", "log_threshold", "least"),
    [
        (0.0, -1, LOOSE, 300),
        (6.0, 1, STRICT, 300),  # the safe side: the long tail of the small arm points there
        (6.0, -1, LOOSE, 900),
        (6.0, -1, STRICT, 1384),
        (-6.0, 1, LOOSE, 900),
        (6.0, 0, LOOSE, 900),
    ],
)
def test_the_burn_in_grows_with_skewness_towards_the_unsafe_side(
    skewness: float, toward: int, log_threshold: float, least: int
) -> None:
    """With far more stable values; then it is some 25 skewness^2 T / ln 20 candidate values."""
    many = 10**12
    assert mean.is_burnt_in(many, least + 1, log_threshold, skewness, toward)
    assert not mean.is_burnt_in(many, least - 1, log_threshold, skewness, toward)


def test_with_equal_arms_skewness_cancels() -> None:
    assert mean.is_burnt_in(300, 300, STRICT, 30.0, 0)


def test_with_the_larger_arm_on_the_candidate_the_safe_side_is_the_other() -> None:
    assert mean.is_burnt_in(400, 40_000, LOOSE, 6.0, -1)
    assert not mean.is_burnt_in(400, 40_000, LOOSE, 6.0, 1)


def test_an_arm_without_spread_is_not_judged() -> None:
    constant = MomentStage(0, Moments(1000, 5000, 25_000), Moments(1000, 7000, 49_000))
    assert mean.rollback([constant], METRIC, LOOSE).outcome is Outcome.UNKNOWN


def test_any_order_of_merging_gives_the_same_bits() -> None:
    parts = [stage(i % 3, normal(50 + i, 900), normal(80 + i, 400, 0.1)) for i in range(12)]
    whole = mean.rollback(parts, METRIC, STRICT, tolerated=0.05)
    assert mean.rollback(parts[::-1], METRIC, STRICT, tolerated=0.05) == whole
    assert mean.rollback(parts[5:] + parts[:5], METRIC, STRICT, tolerated=0.05) == whole


@pytest.mark.parametrize("scale", [1, 10**9])
def test_counts_of_1e12_and_values_of_1e9_give_finite_numbers(scale: int) -> None:
    stages = [
        MomentStage(i, Moments(10**12, 5 * scale, 10**12 * scale**2), Moments(10**6, 7, 10**9)) for i in range(50)
    ]
    verdict = mean.rollback(stages, METRIC, STRICT)
    assert math.isfinite(verdict.log_e)


def test_quantising_clips_and_keeps_integers_small() -> None:
    metric = mean.Metric(centre=10.0, unit=0.5, deviation=1.0, skewness=0.0, low=0.0, high=100.0)
    assert [metric.quantise(v) for v in (10.0, 11.1, -5.0, 1e9, math.inf)] == [0, 2, -20, 180, 180]


def test_nonsense_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="value: got nan"):
        METRIC.quantise(math.nan)
    with pytest.raises(ValueError, match="value: got inf"):
        METRIC.quantise(math.inf)
    with pytest.raises(CountError, match="squares: got 3"):
        Moments(2, 4, 3)
    with pytest.raises(CountError, match=r"total: got 1\.5"):
        Moments(2, 1.5, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="deviation: got 0"):
        mean.Metric(0.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="limit: got -1"):
        mean.rollback([], METRIC, LOOSE, tolerated=-1.0)
