"""What makes a candidate unfit before its first request, and how it is said."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.backends.base import Signature, TensorSpec
from gateway.rollout.acceptance import Timed, broken_fault, compare, latency_fault, memory_fault, signature_fault
from gateway.rollout.trial import Order, Result, Terms

X, Y = TensorSpec("x", "FP32", (-1, 4)), TensorSpec("y", "FP32", (-1, 2))


def signature(*specs: TensorSpec, outputs: tuple[TensorSpec, ...] = (Y,)) -> Signature:
    return Signature(specs or (X,), outputs, True)


def test_equal_signatures_go_together() -> None:
    assert signature_fault(signature(), signature()) == ""


@pytest.mark.parametrize(
    ("candidate", "fault"),
    [
        (signature(TensorSpec("z", "FP32", (-1, 4))), "input 'x': stable takes it, the candidate does not (it has z)"),
        (signature(TensorSpec("x", "FP64", (-1, 4))), "input 'x': expected FP32 as of stable, got FP64"),
        (signature(TensorSpec("x", "FP32", (-1, 5))), "input 'x': expected shape [-1, 4] as of stable, got [-1, 5]"),
        (signature(TensorSpec("x", "FP32", (1, 4))), "input 'x': expected shape [-1, 4] as of stable, got [1, 4]"),
        (signature(TensorSpec("x", "FP32", (-1, 2, 2))), "expected shape [-1, 4] as of stable, got [-1, 2, 2]"),
        (signature(X, TensorSpec("w", "FP32", (-1, 1))), "input 'w': the candidate needs it, and callers of stable do"),
        (signature(outputs=(TensorSpec("p", "FP32", (-1, 2)),)), "output 'y': stable gives it, the candidate does not"),
        (signature(outputs=(TensorSpec("y", "INT64", (-1, 2)),)), "output 'y': expected FP32 as of stable, got INT64"),
        (signature(outputs=(TensorSpec("y", "FP32", (-1, 3)),)), "output 'y': expected shape [-1, 2] as of stable"),
    ],
)
def test_what_callers_of_stable_could_not_call_or_read_is_named(candidate: Signature, fault: str) -> None:
    assert fault in signature_fault(signature(), candidate)


@pytest.mark.parametrize(
    "candidate",
    [
        signature(TensorSpec("x", "FP32", (-1, -1))),
        signature(outputs=(Y, TensorSpec("more", "FP32", (-1, 1)))),
        signature(outputs=(TensorSpec("y", "FP32", (-1, -1)),)),
    ],
)
def test_a_candidate_may_take_more_and_give_more(candidate: Signature) -> None:
    assert signature_fault(signature(), candidate) == ""


def test_the_order_of_inputs_is_nobodys_business() -> None:
    z = TensorSpec("z", "FP32", (-1, 1))
    assert signature_fault(signature(X, z), signature(z, X)) == ""


def test_a_golden_example_is_named_with_what_was_expected_and_what_came() -> None:
    expected = np.array([[0.1, 0.9], [0.5, 0.5], [0.2, 0.8]], np.float32)
    got = expected.copy()
    got[1, 1] = 0.4
    fault = compare("p", expected, got, 1e-3, first=16, n=64).fault
    assert fault == "golden example 18 of 64: output 'p'[1]: expected 0.5, got 0.4: 20 % off, tolerance 0.1 %"


def test_differences_within_the_tolerance_pass_and_the_furthest_is_told() -> None:
    expected = np.array([[1.0], [100.0]])
    compared = compare("y", expected, expected * [[1.0], [1.0004]], 1e-3, 0, 2)
    assert compared.fault == ""
    assert compared.furthest == pytest.approx(4e-4)


def test_digits_of_values_near_zero_are_noise_beside_large_ones() -> None:
    expected = np.array([[1.0, 1e-9]])
    assert compare("p", expected, np.array([[1.0, 3e-9]]), 1e-3, 0, 1).fault == ""
    assert "[1]" in compare("p", expected, np.array([[1.0, 1e-4]]), 1e-3, 0, 1).fault


@pytest.mark.parametrize("got", [np.nan, np.inf])
def test_nan_in_place_of_a_number_is_named(got: float) -> None:
    fault = compare("y", np.array([[1.0], [2.0]]), np.array([[1.0], [got]]), 1e-3, 0, 2).fault
    assert fault == f"golden example 2 of 2: output 'y'[0]: expected 2, got {got}"


def test_an_expected_nan_is_right_and_a_number_in_its_place_is_not() -> None:
    expected = np.array([[np.nan], [np.inf]])
    assert compare("y", expected, expected.copy(), 1e-3, 0, 2).fault == ""
    assert "expected nan, got 1" in compare("y", expected, np.array([[1.0], [np.inf]]), 1e-3, 0, 2).fault


def test_labels_must_be_equal_whatever_text_they_are_kept_as() -> None:
    expected = np.array(["barolo", "barbera"])
    assert compare("label", expected, np.array([b"barolo", "barbera"], object), 0.5, 0, 2).fault == ""
    fault = compare("label", expected, np.array([b"barolo", b"barolo"], object), 0.5, 0, 2).fault
    assert fault == "golden example 2 of 2: output 'label': expected 'barbera', got 'barolo'"
    assert "expected 3, got 4" in compare("label", np.array([3]), np.array([4]), 0.5, 0, 1).fault


def test_another_shape_is_told_as_a_shape() -> None:
    fault = compare("y", np.zeros((2, 3)), np.zeros((2, 4)), 1e-3, 0, 2).fault
    assert fault == "golden example 1 of 2: output 'y': expected shape [3], got [4]"


def test_nan_is_the_candidates_fault_only_where_stable_has_none() -> None:
    odd, fine = np.array([[1.0, np.nan]]), np.array([[1.0, 2.0]])
    assert "output 'y'[0][1]: expected a finite number, got nan" in broken_fault("y", fine, odd, "with made-up inputs")
    assert broken_fault("y", odd, odd, "") == ""
    assert broken_fault("y", fine, fine, "") == ""
    assert broken_fault("y", None, odd, "") != ""


def test_latency_is_refused_above_the_factor_unless_nobody_could_notice() -> None:
    assert latency_fault([Timed(1, 1000.0, 2900.0)], 3.0) == ""
    assert latency_fault([Timed(1, 20.0, 200.0)], 3.0) == ""
    fault = latency_fault([Timed(1, 20.0, 30.0), Timed(16, 1000.0, 3100.0)], 3.0)
    assert fault.startswith("a run of 16 rows took 3.1 ms, 3.1 times as long as stable (1 ms); expected 3 times")


def test_memory_is_refused_above_its_limit() -> None:
    assert memory_fault(10 * 2**20, None) == memory_fault(10 * 2**20, 10 * 2**20) == ""
    assert memory_fault(11 * 2**20, 10 * 2**20).startswith("it takes 11 MiB of memory in a worker, expected 10 MiB")


def test_orders_and_results_come_through_the_store_as_they_were() -> None:
    order = Order("a-1", 2, "abc", "fraud", "1", "2", Terms(True, 1e-2, 2.0, 1 << 20))
    assert Order.from_report(order.key, "fraud", "2", order.body()) == order
    for result in (Result("", ("16 golden examples",)), Result("bad")):
        assert Result.from_body(result.body()) == result
