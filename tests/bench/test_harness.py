"""The timing loop: calibrated, per operation, and strict about what an operation is."""

import pytest

from bench.micro.harness import Operation, measure_ns


def test_a_native_loop_is_asked_for_as_many_as_fill_a_repetition():
    asked = []
    rounds = measure_ns(Operation("range", repeat=lambda n: asked.append(n) or sum(range(n))), 0.002, 3)
    assert len(rounds) == 3
    assert asked[-1] == asked[-4] > 1_000
    assert all(ns > 0 for ns in rounds)


def test_a_call_that_does_many_is_divided_by_their_count():
    one, many = (
        Operation("sum", call=lambda: sum(range(2_000))),
        Operation("sum", call=lambda: sum(range(2_000)), count=1_000),
    )
    assert min(measure_ns(one, 0.002, 3)) > 10 * min(measure_ns(many, 0.002, 3))


def test_an_operation_is_a_call_or_a_native_loop():
    for wrong in ({}, {"call": print, "repeat": print}):
        with pytest.raises(ValueError, match="either call or repeat"):
            Operation("both", **wrong)
