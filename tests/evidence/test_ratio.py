"""The split of the traffic, and freezing when it is broken."""

from __future__ import annotations

import pytest

from gateway.evidence import label, ratio
from gateway.evidence.counts import Stage
from gateway.evidence.verdict import Outcome, log_threshold_of
from tests.evidence import twins

T = log_threshold_of(ratio.ALPHA)


def split(index: int, pi: float, n_stable: int, n_candidate: int) -> Stage:
    return Stage(index, pi, n_stable, n_candidate, 0, 0)


def test_evidence_is_its_definition_with_neighbours_of_equal_pi_as_one() -> None:
    stages = [split(0, 0.1, 900, 130), split(1, 0.1, 800, 90), split(2, 0.5, 700, 720), split(3, 0.1, 90, 9)]
    expected = (
        twins.beta_binomial(220, 1920, 0.1, 1000)
        + twins.beta_binomial(720, 1420, 0.5, 1000)
        + twins.beta_binomial(9, 99, 0.1, 1000)
    )
    assert ratio.log_e_of_split(stages) == pytest.approx(float(expected), rel=1e-11)


def test_a_sound_split_goes_on_and_a_broken_one_freezes() -> None:
    stages = [Stage(0, 0.1, 90_000, 10_000, 100, 200)]
    verdict = label.rollback(stages, T)
    sound = ratio.check(stages, T)
    assert sound.outcome is Outcome.UNDECIDED
    assert ratio.freeze(verdict, sound) is verdict
    broken = ratio.check([Stage(0, 0.1, 88_000, 12_000, 100, 200)], T)
    assert broken.outcome is Outcome.UNKNOWN
    assert broken.effect == pytest.approx(1.2)
    frozen = ratio.freeze(verdict, broken)
    assert frozen.outcome is Outcome.UNKNOWN
    assert frozen.log_e == verdict.log_e
    assert frozen.sentence == (
        "frozen: 12 % of 100,000 requests are the candidate's, 10 % were to be; routing or counting is at fault and"
        " decisions are frozen; risk of a false alarm < 0.1 %"
    )


def test_risk_of_ever_freezing_a_sound_split_is_below_alpha() -> None:
    threshold = log_threshold_of(0.05)
    bound: dict[tuple[int, int], bool] = {}

    def fires(k: int, n: int) -> bool:
        if (k, n) not in bound:
            bound[k, n] = ratio.log_e_of_split([split(0, 0.2, n - k, k)]) >= threshold
        return bound[k, n]

    assert twins.probability_of_ever(fires, 120, [0.2] * 120) <= 0.05


def test_no_drawn_requests_are_no_broken_split() -> None:
    verdict = ratio.check([split(0, 0.0, 100, 0)], T)
    assert verdict.outcome is Outcome.UNKNOWN
    assert verdict.log_e == 0.0
    assert ratio.freeze(verdict, verdict) is verdict
