"""False alarms and delays of the label test with a look at every event, simulated from its exact boundary.

At constant pi the test fires when the candidate has at least b(n) of n events; b is found by bisection. Requests are
drawn as numbers between events. The full study, with other nulls and rivals, is in bench/judge.
"""

from __future__ import annotations

import numpy as np
import pytest

from gateway.evidence.likelihood import ABOVE, FULL_WEIGHT, Labels, log_e_total
from gateway.evidence.verdict import log_threshold_of
from tests.evidence import twins


def boundary(pi: float, threshold: float, n_events: int) -> np.ndarray:
    """b(n) for n = 1 .. n_events; n + 1 where the test cannot fire."""
    n = np.arange(1.0, n_events + 1.0)
    low, high = np.floor(n * pi), n + 1.0
    ratios = np.broadcast_to(ABOVE, (n_events, ABOVE.size))
    shape = (1, n_events)
    while np.any(high - low > 1):
        middle = np.floor((low + high) / 2)
        labels = Labels(np.zeros(shape), np.full(shape, pi), n[None], np.minimum(middle, n)[None])
        fires = log_e_total(labels, np.zeros(n_events), ratios) + np.log(FULL_WEIGHT) >= threshold
        going = high - low > 1
        high = np.where(going & fires, middle, high)
        low = np.where(going & ~fires, middle, low)
    return high


def first_events(pi: float, effect: float, threshold: float, n_events: int, n_runs: int, seed: int) -> np.ndarray:
    """The event at which each run fires; n_events + 1 for those that never do."""
    rng = np.random.default_rng(seed)
    q = twins.share_of_candidate(pi, effect)
    least = boundary(pi, threshold, n_events)
    first = np.full(n_runs, n_events + 1)
    for run in range(n_runs):
        hits = np.cumsum(rng.random(n_events) < q) >= least
        if hits.any():
            first[run] = int(np.argmax(hits)) + 1
    return first


@pytest.mark.parametrize("pi", [0.1, 0.5])
def test_looking_after_every_event_keeps_the_risk(pi: float) -> None:
    for alpha in (0.05, 0.01):
        first = first_events(pi, 1.0, log_threshold_of(alpha), 2000, 1500, seed=1)
        rate = float(np.mean(first <= 2000))
        assert rate <= alpha + 3 * (alpha * (1 - alpha) / 1500) ** 0.5


DELAYS = [
    (0.01, 0.5, 1.5, 13_700, 35_000),
    (0.01, 0.5, 2.0, 3_800, 8_700),
    (0.01, 0.5, 3.0, 1_200, 3_100),
    (0.01, 0.1, 1.5, 36_000, 86_000),
    (0.01, 0.1, 2.0, 9_300, 25_000),
    (0.01, 0.1, 3.0, 2_800, 7_500),
    (0.001, 0.1, 2.0, 96_000, 270_000),
]


def delays(rate: float, pi: float, effect: float, n_runs: int) -> tuple[float, float]:
    first = first_events(pi, effect, log_threshold_of(0.05), 4000, n_runs, seed=2)
    rng = np.random.default_rng(3)
    per_request = rate * (1 - pi + pi * effect)
    requests = first + rng.negative_binomial(first, per_request)
    return float(np.median(requests)), float(np.quantile(requests, 0.9))


@pytest.mark.parametrize(("rate", "pi", "effect", "median", "ninetieth"), DELAYS[1:5:3])
def test_a_worse_candidate_is_found_in_the_expected_time(
    rate: float, pi: float, effect: float, median: float, ninetieth: float
) -> None:
    found = delays(rate, pi, effect, 800)
    assert found[0] == pytest.approx(median, rel=0.2)
    assert found[1] == pytest.approx(ninetieth, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "pi", "effect", "median", "ninetieth"), DELAYS)
def test_delays_are_those_of_the_study(rate: float, pi: float, effect: float, median: float, ninetieth: float) -> None:
    found = delays(rate, pi, effect, 6000)
    assert found[0] == pytest.approx(median, rel=0.12)
    assert found[1] == pytest.approx(ninetieth, rel=0.1)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("pi", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("alpha", [0.05, 0.01, 0.001])
def test_risk_over_a_long_rollout(pi: float, alpha: float) -> None:
    first = first_events(pi, 1.0, log_threshold_of(alpha), 20_000, 10_000, seed=4)
    assert float(np.mean(first <= 20_000)) <= alpha + 3 * (alpha * (1 - alpha) / 10_000) ** 0.5
