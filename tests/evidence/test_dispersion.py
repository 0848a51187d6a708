"""Bursts: incidents instead of events, and how large bursts are."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.evidence import label
from gateway.evidence.counts import Stage
from gateway.evidence.dispersion import MINUTE_US, Event, count_incidents, phi_of_cells, phi_of_sizes
from gateway.evidence.verdict import log_threshold_of

EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(0, 10**6),
        st.integers(0, 5 * MINUTE_US),
        st.sampled_from("abc"),
        st.integers(0, 2),
        st.booleans(),
    ),
    max_size=30,
    unique_by=lambda event: event.order,
)


@given(EVENTS, st.randoms(use_true_random=False))
def test_incidents_are_counted_once_whatever_the_order(events: list[Event], rng: random.Random) -> None:
    expected: dict[tuple[int, bool], int] = {}
    groups: dict[tuple[object, int], list[Event]] = {}
    for event in events:
        groups.setdefault((event.unit, event.arrived_us // MINUTE_US), []).append(event)
    for group in groups.values():
        first = min(group, key=lambda event: event.order)
        place = (first.stage, first.is_candidate)
        expected[place] = expected.get(place, 0) + 1
    rng.shuffle(events)
    assert count_incidents(events) == expected


def test_the_size_of_the_burst_of_an_average_event() -> None:
    assert phi_of_sizes({1: 100}) == 1
    assert phi_of_sizes({}) == 1
    assert phi_of_sizes({1: 2, 4: 1}) == Fraction(2 + 16, 6)


@pytest.mark.parametrize("mean", [1, 2, 5])
def test_bursts_are_seen_in_counts_by_second(mean: int) -> None:
    rng = np.random.default_rng(mean)
    cells, sizes = [], {}
    for _ in range(4000):
        k = [0, 0]
        for _ in range(int(rng.poisson(0.4))):
            size = int(rng.geometric(1 / mean))
            sizes[size] = sizes.get(size, 0) + 1
            k[int(rng.random() < 0.3)] += size
        cells.append(Stage(1, 0.2, 100, 100, k[0], k[1]))
    assert float(phi_of_cells(cells)) == pytest.approx(float(phi_of_sizes(sizes)), rel=0.15)
    assert phi_of_cells(reversed(cells)) == phi_of_cells(cells)


def test_a_candidate_that_fails_more_is_no_burst() -> None:
    rng = np.random.default_rng(0)
    cells = [Stage(0, 0.5, 100, 100, int(rng.poisson(0.2)), int(rng.poisson(1.0))) for _ in range(5000)]
    assert float(phi_of_cells(cells)) == pytest.approx(1.0, abs=0.1)


def test_counts_divided_by_phi_are_the_evidence_of_fewer_events() -> None:
    threshold = log_threshold_of(0.05)
    bursts = label.rollback([Stage(0, 0.5, 1000, 1000, 60, 120)], threshold, phi=3.0)
    single = label.rollback([Stage(0, 0.5, 1000, 1000, 20, 40)], threshold)
    assert bursts.log_e == pytest.approx(single.log_e, rel=1e-12)
    assert bursts.interval == pytest.approx(single.interval, rel=1e-9)
    assert bursts.counts == ((0, 0.5, 1000, 1000, 60, 120),)


@pytest.mark.slow
def test_the_average_phi_keeps_the_risk_near_its_bound() -> None:
    threshold, pi, rng = log_threshold_of(0.05), 0.1, np.random.default_rng(11)
    for mean in (2, 5):
        sizes = rng.geometric(1 / mean, (1000, 400))
        hits = sizes * (rng.random(sizes.shape) < pi)
        phi = float(np.mean(sizes**2.0) / np.mean(sizes))
        fired = {1.0: 0, phi: 0}
        for row, size in zip(hits.cumsum(axis=1), sizes.cumsum(axis=1), strict=True):
            for divisor in fired:
                questions = [
                    label.Question(
                        (Stage(0, pi, n, n, n - k, k),), label.Direction.ROLLBACK, 1.0, threshold, phi=divisor
                    )
                    for k, n in zip(row[9::10].tolist(), size[9::10].tolist(), strict=True)
                ]
                labels, log_r0, above = label.arrays(questions)
                fired[divisor] += bool(np.any(label.log_e_with_restarts(labels, log_r0, above, above)[0] >= threshold))
        assert fired[1.0] / 1000 > 0.15
        assert fired[phi] / 1000 <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5
