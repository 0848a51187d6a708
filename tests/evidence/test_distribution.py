"""Distributions by arm: the evidence is its definition, is valid, and finds what it should."""

from __future__ import annotations

import itertools
import math

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import distribution
from gateway.evidence.counts import BinnedStage
from gateway.evidence.verdict import Outcome, log_threshold_of
from tests.evidence import twins

T = log_threshold_of(0.01)


def evidence_from_definition(stages: list[BinnedStage]) -> mp.mpf:
    """Bins and edges, prior weights, runs of equal pi, and restarts: loops over the formulas."""

    def of(stages: list[BinnedStage]) -> mp.mpf:
        runs: list[tuple[float, list[int], list[int]]] = []
        for pi, group in itertools.groupby(stages, key=lambda stage: stage.pi):
            run = list(group)
            hits = [sum(column) for column in zip(*(stage.candidate for stage in run), strict=True)]
            stable = [sum(column) for column in zip(*(stage.stable for stage in run), strict=True)]
            runs.append((pi, hits, [a + b for a, b in zip(hits, stable, strict=True)]))
        by_bins, by_edges = [], []
        for c in (10, 100, 1000):
            by_bins.append(
                mp.exp(
                    sum(
                        twins.beta_binomial(s, n, pi, c)
                        for pi, hits, all_ in runs
                        for s, n in zip(hits, all_, strict=True)
                    )
                )
            )
            for e in range(1, len(runs[0][1])):
                by_edges.append(
                    mp.exp(
                        sum(
                            twins.beta_binomial(sum(hits[:e]), sum(all_[:e]), pi, c)
                            + twins.beta_binomial(sum(hits[e:]), sum(all_[e:]), pi, c)
                            for pi, hits, all_ in runs
                        )
                    )
                )
        return (mp.fsum(by_bins) / len(by_bins) + mp.fsum(by_edges) / len(by_edges)) / 2

    total = mp.mpf("0.95") * of(stages)
    for start in range(1, len(stages)):
        i = stages[start].index
        total += mp.mpf("0.05") / (i * (i + 1)) * of(stages[start:])
    return mp.log(total)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.05, 0.3]), st.lists(st.integers(0, 300), min_size=8, max_size=8)),
        min_size=1,
        max_size=4,
    )
)
def test_evidence_is_its_definition(rows: list[tuple[float, list[int]]]) -> None:
    stages = [BinnedStage(i + 1, pi, tuple(b[:4]), tuple(b[4:])) for i, (pi, b) in enumerate(rows) if sum(b)]
    if stages:
        expected = float(evidence_from_definition(stages))
        assert distribution.log_e_equal(stages) == pytest.approx(expected, rel=1e-10, abs=1e-10)


def stages_of(sizes: list[tuple[int, ...]], pis: list[float], hits: tuple[int, ...]) -> list[BinnedStage]:
    it = iter(hits)
    result = []
    for i, (bins, pi) in enumerate(zip(sizes, pis, strict=True)):
        candidate = tuple(next(it) for _ in bins)
        result.append(BinnedStage(i, pi, tuple(n - k for n, k in zip(bins, candidate, strict=True)), candidate))
    return result


@pytest.mark.parametrize("pis", [[0.3, 0.6], [0.3, 0.3]])
def test_mean_evidence_is_at_most_one_when_the_arms_are_alike(pis: list[float]) -> None:
    sizes = [(3, 2, 4), (2, 3, 2)]
    ns = [n for bins in sizes for n in bins]
    mean = 0.0
    for hits, p in twins.outcomes(ns, [pi for pi in pis for _ in range(3)]):
        mean += p * math.exp(distribution.log_e_equal(stages_of(sizes, pis, hits)))
    assert mean == pytest.approx(0.95 + 0.025, rel=1e-9)


def test_mean_evidence_is_at_most_one_within_the_tolerance() -> None:
    sizes, pis, t = [(3, 2, 3), (2, 2, 2)], [0.3, 0.6], 1.5
    ns = [n for bins in sizes for n in bins]
    e = {h: math.exp(distribution.log_e_within(stages_of(sizes, pis, h), t)) for h, _ in twins.outcomes(ns, [0.5] * 6)}
    for risks in ((1, 1, 1), (t, 1 / t, 1), (1 / t, t, t), (t, t, t)):
        qs = [twins.share_of_candidate(pi, r) for pi in pis for r in risks]
        assert sum(p * e[hits] for hits, p in twins.outcomes(ns, qs)) <= 1.0


def sample(law_c: np.ndarray, law_b: np.ndarray, pi: float, n: int, seed: int) -> BinnedStage:
    rng = np.random.default_rng(seed)
    n_c = int(rng.binomial(n, pi))
    c, b = rng.multinomial(n_c, law_c), rng.multinomial(n - n_c, law_b)
    return BinnedStage(1, pi, tuple(map(int, b)), tuple(map(int, c)))


def test_a_shift_is_found_and_located() -> None:
    flat = np.full(16, 1 / 16)
    shifted = np.concatenate([np.full(8, 0.05), np.full(8, 0.075)])
    verdict = distribution.rollback([sample(shifted, flat, 0.1, 20_000, 0)], T, what="scores")
    assert verdict.outcome is Outcome.WORSE
    assert verdict.effect == pytest.approx(0.1, abs=0.03)
    assert "of the candidate's scores," in verdict.sentence
    assert "more than of stable's are in bin 8 or above, in 20,000 requests" in verdict.sentence


def test_a_harmless_difference_is_tolerated_at_any_size() -> None:
    # with equality as the null, a shift of one in a hundred is found sooner or later
    flat = np.full(16, 1 / 16)
    other = flat * np.where(np.arange(16) % 2, 1.01, 0.99)
    stage = sample(other, flat, 0.5, 10_000_000, 1)
    assert distribution.rollback([stage], T).outcome is Outcome.WORSE
    assert distribution.rollback([stage], T, tolerated=1.1).outcome is Outcome.UNDECIDED
    spike = flat * np.where(np.arange(16) == 3, 1.5, 14.5 / 15)
    stage = sample(spike, flat, 0.5, 50_000, 1)
    assert distribution.rollback([stage], T, tolerated=1.1).outcome is Outcome.WORSE


def test_extreme_counts_and_shapes_give_numbers() -> None:
    big = BinnedStage(0, 0.01, (10**12, 0, 10**11), (10**10, 0, 10**9))
    assert math.isfinite(distribution.log_e_equal([big]))
    assert math.isfinite(distribution.log_e_within([big], 1.2))
    assert distribution.log_e_equal([]) == 0.0
    assert math.isfinite(distribution.rollback([BinnedStage(0, 0.5, (5,), (9,))], T).log_e)
    assert distribution.rollback([], T).outcome is Outcome.UNKNOWN
    many = [BinnedStage(i, 0.1 + 0.0001 * i, (3, 4, 5), (1, 0, 1)) for i in range(3000)]
    assert math.isfinite(distribution.log_e_equal(many))
    with pytest.raises(ValueError, match="stages: got 2 bins in stage 1, expected 3"):
        distribution.rollback([big, BinnedStage(1, 0.5, (1, 1), (1, 1))], T)
