"""Shadow pairs and shares against a limit: definitions, validity by enumeration, sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.evidence import limit, paired
from gateway.evidence.counts import CountError
from gateway.evidence.verdict import Direction, Outcome, log_threshold_of
from tests.evidence import twins

T = log_threshold_of(0.05)


@pytest.mark.parametrize("q", [0.02, 0.5])
def test_mean_evidence_on_a_share_is_at_most_one_up_to_the_limit(q: float) -> None:
    n = 60
    above = [math.exp(limit.log_e_above(k, n, q)) for k in range(n + 1)]
    below = [math.exp(limit.log_e_below(k, n, q)) for k in range(n + 1)]
    for share in np.linspace(0.0, 1.0, 41):
        mean_above = sum(twins.binomial(k, n, q * share) * above[k] for k in range(n + 1))
        mean_below = sum(twins.binomial(k, n, 1 - (1 - q) * share) * below[k] for k in range(n + 1))
        assert mean_above <= 1 + 1e-9
        assert mean_below <= 1 + 1e-9
    assert mean_above == pytest.approx(1.0)
    assert mean_below == pytest.approx(1.0)


def test_a_share_sequence_passes_its_limit_with_at_most_the_risk() -> None:
    for q in (0.02, 0.5):
        risk = twins.probability_of_ever(lambda k, n, q=q: limit.log_e_above(k, n, q) >= T, 120, [q] * 120)
        assert 0.0 < risk <= 0.05


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**12), st.floats(0, 1))
def test_interval_of_a_share_is_where_its_evidence_stays_below(n: int, share: float) -> None:
    k = min(n, round(n * share))
    low, high = limit.interval(k, n, T)
    assert 0.0 <= low <= k / n <= high <= 1.0

    def evidence(p: float) -> float:
        mixture = scipy.special.betaln(0.5 + k, 0.5 + n - k) - scipy.special.betaln(0.5, 0.5)
        return float(mixture - scipy.special.xlogy(k, p) - scipy.special.xlog1py(n - k, -p))

    if n <= 10**6:
        if low > 0:
            assert evidence(low) >= T - 1e-6
            assert evidence(low + 0.01 * (k / n - low)) < T
        if high < 1:
            assert evidence(high) >= T - 1e-6
            assert evidence(high - 0.01 * (high - k / n)) < T


def test_interval_of_a_share_covers_at_all_times() -> None:
    for p in (0.02, 0.3):
        missed = twins.probability_of_ever(
            lambda k, n, p=p: not limit.interval(k, n, T)[0] <= p <= limit.interval(k, n, T)[1], 60, [p] * 60
        )
        assert missed <= 0.05


@pytest.mark.parametrize(
    ("direction", "loss"), [(Direction.ROLLBACK, 0.0), (Direction.ROLLBACK, 0.05), (Direction.PROMOTE, 0.05)]
)
def test_mean_evidence_on_correctness_is_at_most_one(direction: Direction, loss: float) -> None:
    n = 14
    e = {
        (s, c): math.exp(paired.log_e_of_loss(s, c, n - s - c, loss, direction))
        for s in range(n + 1)
        for c in range(n + 1 - s)
    }
    sign = 1 if direction is Direction.ROLLBACK else -1
    worst = 0.0
    for discordant in (0.06, 0.3, 1.0):
        for slack in (0.0, 0.02, 0.3):
            lost = loss - sign * slack
            p_s, p_c = (discordant + lost) / 2, (discordant - lost) / 2
            if min(p_s, p_c) < 0:
                continue
            mean = sum(
                math.comb(n, s) * math.comb(n - s, c) * p_s**s * p_c**c * max(0.0, 1 - p_s - p_c) ** (n - s - c) * value
                for (s, c), value in e.items()
            )
            assert mean <= 1 + 1e-9
            worst = max(worst, mean)
    assert worst == pytest.approx(1.0)


def test_the_sign_test_is_its_definition() -> None:
    for stable, candidate in ((0, 0), (9, 2), (40, 20), (5, 30)):
        expected = float(twins.beta_binomial_above(stable, stable + candidate, 0.5, 8.0))
        assert paired.log_e_of_loss(stable, candidate, 1000, 0.0, Direction.ROLLBACK) == pytest.approx(
            expected, abs=1e-6
        )


def test_too_much_disagreement_is_worse_and_little_is_good() -> None:
    pairs = [paired.PairStage(1, 2000, 100), paired.PairStage(2, 2000, 90)]
    verdict = paired.disagreement(pairs, T, limit=0.02)
    assert verdict.outcome is Outcome.WORSE
    assert verdict.sentence == (
        "candidate answers differently in 4.8 % (3.6 % to 6.2 %) of 4,000 shadow requests, limit 2 %;"
        " risk of a false alarm < 5 %"
    )
    good = paired.disagreement([paired.PairStage(1, 4000, 20)], T, limit=0.02, direction=Direction.PROMOTE)
    assert good.outcome is Outcome.OK
    assert paired.disagreement([], T, limit=0.02).outcome is Outcome.UNKNOWN


def test_who_is_right_decides_with_labels() -> None:
    worse = [paired.PairStage(0, 5000, 400, 4000, 160, 80)]
    verdict = paired.correctness(worse, T)
    assert verdict.outcome is Outcome.WORSE
    assert verdict.effect == pytest.approx(0.02)
    assert verdict.sentence.startswith("candidate loses 2 % (")
    assert "right alone in 80, stable in 160; risk of a false alarm < 5 %" in verdict.sentence
    same = [paired.PairStage(0, 5000, 400, 4000, 80, 80)]
    assert paired.correctness(same, T).outcome is Outcome.UNDECIDED
    kept = paired.correctness(same, T, loss=0.02, direction=Direction.PROMOTE)
    assert kept.outcome is Outcome.OK
    assert kept.interval is not None
    assert kept.interval[1] <= 0.02


def test_models_that_never_differ_can_be_promoted() -> None:
    verdict = paired.correctness([paired.PairStage(0, 1000, 0, 1000, 0, 0)], T, loss=0.01, direction=Direction.PROMOTE)
    assert verdict.outcome is Outcome.OK


def test_the_interval_of_the_loss_pays_for_two_shares() -> None:
    low, high = paired.loss_interval(160, 80, 4000, T)
    half = T + math.log(2.0)
    (low_s, high_s), (low_c, high_c) = limit.interval(160, 4000, half), limit.interval(80, 4000, half)
    assert (low, high) == (low_s - high_c, high_s - low_c)
    assert low < 0.02 < high


def test_pairs_that_cannot_be_are_refused() -> None:
    with pytest.raises(CountError, match="n_differ: got 3, expected at most n = 2"):
        paired.PairStage(0, 2, 3)
    with pytest.raises(CountError, match="together at most n_labelled = 2"):
        paired.PairStage(0, 5, 0, 2, 2, 1)
    with pytest.raises(ValueError, match=r"loss: got 0.0, expected a share from 0 to 1, and above 0 to promote"):
        paired.correctness([], T, direction=Direction.PROMOTE)
    with pytest.raises(CountError, match=r"limit: got 1.0, expected a share between 0 and 1"):
        limit.log_e_above(1, 2, 1.0)
