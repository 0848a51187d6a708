"""How long each guardrail will need, said before the start."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from gateway.evidence import label
from gateway.evidence.counts import Stage
from gateway.evidence.plan import Goal, expect, expect_pairs, log_e_expected, schedule, span_of_time
from gateway.evidence.verdict import Direction, log_threshold_of

T = log_threshold_of(0.05)


def rollback(rate: float, effect: float, phi: float = 1.0) -> Goal:
    return Goal("errors", Direction.ROLLBACK, (rate,), (effect,), (1.0,), T, phi)


def promote(rate: float, margin: float, negligible: float | None = None) -> Goal:
    return Goal("errors", Direction.PROMOTE, (rate,), (1.0,), (margin,), T, 1.0, negligible)


@pytest.mark.parametrize(
    ("rate", "pi", "effect", "median", "ninetieth"),
    [
        (0.01, 0.5, 1.5, 13_700, 35_000),
        (0.01, 0.5, 2.0, 3_800, 8_700),
        (0.01, 0.5, 3.0, 1_200, 3_100),
        (0.01, 0.1, 1.5, 36_000, 86_000),
        (0.01, 0.1, 2.0, 9_300, 25_000),
        (0.01, 0.1, 3.0, 2_400, 6_700),
        (0.001, 0.1, 3.0, 26_000, 78_000),
    ],
)
def test_plans_agree_with_simulated_detection(
    rate: float, pi: float, effect: float, median: float, ninetieth: float
) -> None:
    found = expect(rollback(rate, effect), pi, 100.0)
    assert found.typical_requests == pytest.approx(median, rel=0.3)
    assert found.careful_requests == pytest.approx(ninetieth, rel=0.3)


@pytest.mark.parametrize(
    ("rate", "pi", "margin", "median"),
    [(0.01, 0.1, 2.0, 11_700), (0.01, 0.5, 2.0, 6_000), (0.01, 0.5, 1.5, 17_500), (0.001, 0.5, 2.0, 48_000)],
)
def test_plans_agree_with_simulated_promotion(rate: float, pi: float, margin: float, median: float) -> None:
    assert expect(promote(rate, margin), pi, 100.0).typical_requests == pytest.approx(median, rel=0.3)


def test_expected_evidence_is_that_of_the_expected_counts() -> None:
    n = 100_000
    goal = rollback(0.01, 2.0)
    expected = log_e_expected(goal, 0.1, np.array([float(n)]))[0]
    stage = Stage(0, 0.1, 90_000, 10_000, 900, 200)
    assert expected == pytest.approx(label.rollback([stage], T).log_e, rel=1e-9)


def test_days_are_warned_of() -> None:
    slow = expect(promote(0.001, 1.5), 0.01, 2.0)
    assert slow.is_too_slow
    assert "days" in slow.sentence
    assert "more traffic for the candidate, a larger margin or a larger effect would be sooner" in slow.sentence
    assert not expect(promote(0.01, 2.0), 0.5, 100.0).is_too_slow


def test_what_will_never_be_is_said() -> None:
    never = expect(promote(0.0, 2.0), 0.1, 100.0)
    assert never.typical_requests == math.inf
    assert never.is_too_slow
    assert "without events a ratio has no evidence" in never.sentence
    assert json.loads(json.dumps(never.as_dict(), allow_nan=False))["typical_s"] == "inf"
    assert expect(promote(0.0, 2.0, negligible=0.001), 0.1, 100.0).typical_requests < 100_000
    assert expect(rollback(0.01, 1.0), 0.1, 100.0).typical_requests == math.inf
    assert expect(rollback(0.01, 2.0), 0.1, 0.0).typical_s == math.inf


def test_plans_move_the_right_way() -> None:
    def needs(goal: Goal, pi: float = 0.1) -> float:
        return expect(goal, pi, 1.0).typical_requests

    assert needs(rollback(0.01, 3.0)) < needs(rollback(0.01, 2.0)) < needs(rollback(0.001, 2.0))
    assert needs(rollback(0.01, 2.0), 0.5) < needs(rollback(0.01, 2.0), 0.1) < needs(rollback(0.01, 2.0), 0.01)
    assert needs(rollback(0.01, 2.0, phi=3.0)) == pytest.approx(3.0 * needs(rollback(0.01, 2.0)), rel=0.5)
    assert needs(promote(0.01, 3.0)) < needs(promote(0.01, 1.5))
    latency = Goal("p99", Direction.ROLLBACK, (0.1, 0.01), (1.5, 2.0), (1.0, 1.0), T)
    assert needs(latency) < needs(Goal("p99", Direction.ROLLBACK, (0.01,), (2.0,), (1.0,), T))
    assert len(schedule([latency, promote(0.01, 2.0)], [0.01, 0.1, 0.5], 10.0)) == 6


def test_pairs_are_planned() -> None:
    found = expect_pairs("agreement", T, 10.0, limit=0.02, share=0.05)
    assert 100 < found.typical_requests < 2000
    assert math.isinf(expect_pairs("agreement", T, 10.0, limit=0.05, share=0.05).typical_requests)


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (720, "12 min"), (19_000, "5.3 h"), (800_000, "9.3 days"), (math.inf, "never")]
)
def test_time_is_written_for_people(seconds: float, text: str) -> None:
    assert span_of_time(seconds) == text
