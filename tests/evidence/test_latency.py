"""Slower candidates: frozen thresholds, averaged; and quantiles for people."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from gateway.evidence import label, latency
from gateway.evidence.counts import BinnedStage
from gateway.evidence.quantiles import log_linear_edges, quantile
from gateway.evidence.verdict import Outcome, log_threshold_of
from tests.evidence import twins

T = log_threshold_of(0.05)
THRESHOLDS = (20_000, 50_000, 80_000)


def test_evidence_is_the_mean_and_for_promotion_the_least_of_the_thresholds() -> None:
    stages = [
        BinnedStage(0, 0.1, (900, 300, 100, 20), (80, 40, 25, 8)),
        BinnedStage(1, 0.5, (90, 30, 9, 2), (70, 60, 9, 5)),
    ]
    each = [label.rollback([s.above(i) for s in stages], T).log_e for i in (1, 2, 3)]
    verdict = latency.rollback(stages, THRESHOLDS, T)
    assert verdict.log_e == pytest.approx(math.log(sum(map(math.exp, each)) / 3), rel=1e-12)
    each = [label.promote([s.above(i) for s in stages], T, margin=m).log_e for i, m in ((1, 1.1), (2, 2.0), (3, 9.0))]
    assert latency.promote(stages, THRESHOLDS, T, margin=(1.1, 2.0, 9.0)).log_e == min(each)


def test_mean_evidence_is_at_most_one_whatever_the_bins() -> None:
    # labels are drawn, given the bins: of 2, 3, 2, 2 requests by bin at pi = 0.3
    sizes, pi = (2, 3, 2, 2), 0.3
    mean = 0.0
    for ks, p in twins.outcomes(sizes, (pi,) * 4):
        stage = BinnedStage(0, pi, tuple(n - k for n, k in zip(sizes, ks, strict=True)), ks)
        mean += p * math.exp(latency.rollback([stage], THRESHOLDS, T).log_e)
    assert mean == pytest.approx(0.95, rel=1e-9)  # 0.05 is kept for stages to come


def test_a_slower_candidate_is_named_with_the_threshold_that_shows_it() -> None:
    stage = BinnedStage(3, 0.1, (8000, 700, 200, 100), (700, 150, 80, 70))
    verdict = latency.rollback([stage], THRESHOLDS, T)
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence.startswith("candidate is slower than 20 ms 2.7 times as often (2.1 to 3.4) ")
    assert verdict.sentence.endswith(" as stable in 10,000 requests; risk of a false alarm < 5 %")
    assert verdict.counts == ((3, 0.1, 8000, 700, 200, 100, 700, 150, 80, 70),)


def test_judged_together_is_judged_alone_bit_by_bit() -> None:
    rng = np.random.default_rng(1)
    questions = [
        latency.LatencyQuestion(
            tuple(
                BinnedStage(
                    i, 0.1 * (i + 1), tuple(map(int, rng.integers(0, 99, 4))), tuple(map(int, rng.integers(0, 20, 4)))
                )
                for i in range(3)
            ),
            THRESHOLDS,
            direction,
            T,
            (1.0, 1.0, 1.1) if direction is latency.Direction.ROLLBACK else (1.2, 1.5, 2.0),
        )
        for direction in (latency.Direction.ROLLBACK, latency.Direction.PROMOTE) * 4
    ]
    assert latency.judge(questions) == [latency.judge([q])[0] for q in questions]


def test_wrong_thresholds_name_the_field() -> None:
    stage = BinnedStage(0, 0.5, (1, 2), (1, 2))
    with pytest.raises(ValueError, match=r"stages: got 2 bins, expected 4 for 3 thresholds"):
        latency.rollback([stage], THRESHOLDS, T)
    with pytest.raises(ValueError, match=r"thresholds_us: got \(2, 1\), expected at least one, in ascending order"):
        latency.rollback([], (2, 1), T)
    with pytest.raises(ValueError, match=r"r0: got 1 values, expected one for each of 3 thresholds"):
        latency.promote([], THRESHOLDS, T, margin=(2.0,))


def test_edges_are_no_wider_than_a_thirty_second() -> None:
    edges = np.array(log_linear_edges(10.0, 1e8))
    assert 743 <= edges.size - 1 <= 746
    assert np.max(np.diff(edges) / edges[:-1]) <= 1 / 32 + 1e-12


@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.99])
def test_a_quantile_is_within_its_bucket_of_the_sorted_values(p: float) -> None:
    rng = np.random.default_rng(3)
    values = rng.lognormal(8.0, 0.6, 5000)
    edges = log_linear_edges(10.0, 1e6)
    counts = np.histogram(values, edges)[0]
    exact = float(np.quantile(values, p, method="inverted_cdf"))
    found = quantile([int(n) for n in counts], edges, p)
    assert found is not None
    assert found.value == pytest.approx(exact, rel=1 / 32)
    assert found.low < scipy.stats.lognorm(0.6, scale=math.exp(8.0)).ppf(p) < found.high


def test_quantile_interval_is_the_edges_that_the_definition_rejects() -> None:
    counts, edges, p = [5, 40, 300, 500, 100, 40, 15], list(range(8)), 0.9
    found = quantile(counts, edges, p, T)
    cumulative = [0, *itertools.accumulate(counts)]
    out = [float(twins.beta_binomial(k, 1000, p, 80.0)) >= T for k in cumulative]
    assert found is not None
    assert found.low == max(e for e, k, o in zip(edges, cumulative, out, strict=True) if o and k < 900)
    assert found.high == min(e for e, k, o in zip(edges, cumulative, out, strict=True) if o and k > 900)


def test_too_few_values_bound_no_extreme_quantile() -> None:
    assert quantile([0, 0], [1, 2, 3], 0.5) is None
    found = quantile([10, 5], [1, 2, 3], 0.99)
    assert found is not None
    assert found.high == math.inf
