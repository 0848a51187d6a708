"""The estimate of a run's time: finds c + a * rows, follows a change, and is not carried away by one slow run."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native.lane import Lane
from gateway.native.signature import Signature
from gateway.native.timers import Timers
from tests.support.slowlane import SlowCost


def lane():
    signature = Signature("m", "1", [("x", "FP32", (-1,))], [("y", "FP32", (-1,))], True)
    return Lane(signature, None, None, None, Timers(), [], max_batch_size=64)


RUNS = st.lists(st.tuples(st.integers(1, 64), st.floats(1, 100_000)), max_size=30)


@given(RUNS, st.integers(1, 64))
def test_the_estimate_is_its_slow_twin(runs, rows):
    fast, slow = lane(), SlowCost()
    for n, us in runs:
        fast.learn(n, us)
        slow.observe(n, us)
    assert fast.predicted_us(rows) == pytest.approx(slow.predict_us(rows), rel=1e-6, abs=1e-3)


def test_before_anything_has_run_it_is_nothing():
    assert lane().predicted_us(5) == 0


@pytest.mark.parametrize("rows", [1, 3, 17, 64])
def test_a_straight_line_is_found(rows):
    costs = lane()
    for _ in range(3):
        for n in (1, 2, 4, 8, 16, 32, 64):
            costs.learn(n, 100 + 7 * n)
    assert costs.predicted_us(rows) == pytest.approx(100 + 7 * rows, rel=0.01)


def test_of_one_size_half_is_taken_to_grow_with_rows():
    costs = lane()
    costs.learn(10, 100)
    assert [costs.predicted_us(n) for n in (10, 20, 1)] == pytest.approx([100, 150, 55])


def test_more_rows_are_never_expected_to_take_less():
    costs = lane()
    for n, us in [(1, 500), (64, 100), (1, 480), (64, 90)]:
        costs.learn(n, us)
    assert costs.predicted_us(64) >= costs.predicted_us(1) > 0


def test_it_follows_a_change_of_speed_within_a_hundred_batches():
    costs = lane()
    for _ in range(200):
        costs.learn(1, 100)
    for _ in range(100):
        costs.learn(1, 250)
    assert 220 < costs.predicted_us(1) <= 250


def test_one_run_that_was_interrupted_is_no_trend():
    costs = lane()
    for _ in range(50):
        costs.learn(1, 100)
    costs.learn(1, 1_000_000)
    assert costs.predicted_us(1) < 115


def test_a_prediction_is_never_negative():
    costs = lane()
    for n in (30, 40, 50, 60):
        costs.learn(n, 10 * (n - 25))
    assert costs.predicted_us(1) == 0
