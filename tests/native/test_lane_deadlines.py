"""Deadlines: whose counts, refused before it runs, refused early when it cannot be met, and not for ever."""

import time

import pytest

from gateway.native.timers import run_due
from tests.support.lanes import DEADLINE_EXCEEDED, OK, Harness, Model


@pytest.mark.parametrize("busy", [True, False], ids=["no executor is free", "an executor is free"])
def test_a_request_that_expires_in_the_queue_is_refused_at_once_and_never_runs(busy):
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_delay_us=0 if busy else 50_000)
        if busy:
            plane.send(0.0)
            plane.turn()
        call = plane.send(1.0, grpc_timeout="10m")
        plane.turn()
        plane.turn(9_999 if busy else 0)
        assert not call.is_answered
        plane.turn(1 if busy else 10_000)
        assert call.code == DEADLINE_EXCEEDED
        assert call.text == "the deadline passed while the request waited 10.0 ms in the queue of model 'm' version '1'"
        assert (lane.n_queued, lane.queued_rows) == (0, 0)
        plane.finish_all()
        assert [1.0] not in model.runs


def test_one_that_expired_before_it_came_is_refused_without_queueing():
    with Harness() as plane:
        lane = plane.lane()
        call = plane.send(1.0, grpc_timeout="1m")
        plane.turn(1_000)
        assert (call.code, call.text) == (DEADLINE_EXCEEDED, "the deadline had passed when the request arrived")
        assert not plane.batches
        assert lane.statistics()["requests"] == {DEADLINE_EXCEEDED: 1}


@pytest.mark.parametrize(
    ("policy", "wishes", "expected_us"),
    [
        ({}, {}, None),
        ({}, {"grpc_timeout": "7m"}, 7_000),
        ({}, {"timeout_us": 5_000}, 5_000),
        ({}, {"timeout_us": 5_000, "grpc_timeout": "7m"}, 5_000),
        ({}, {"timeout_us": 9_000, "grpc_timeout": "7m"}, 7_000),
        ({"default_timeout_us": 3_000}, {}, 3_000),
        ({"default_timeout_us": 3_000}, {"grpc_timeout": "7m"}, 7_000),
        ({"default_timeout_us": 3_000}, {"timeout_us": 5_000}, 5_000),
        ({"max_timeout_us": 4_000}, {}, 4_000),
        ({"max_timeout_us": 4_000}, {"grpc_timeout": "7m"}, 4_000),
        ({"max_timeout_us": 4_000}, {"grpc_timeout": "2m"}, 2_000),
        ({"max_timeout_us": 4_000}, {"timeout_us": 5_000}, 4_000),
        ({"max_timeout_us": 4_000}, {"timeout_us": 1_000}, 1_000),
        ({"max_timeout_us": 4_000, "default_timeout_us": 3_000}, {}, 3_000),
        ({"max_timeout_us": 4_000, "default_timeout_us": 9_000}, {}, 4_000),
        ({"max_timeout_us": 4_000, "default_timeout_us": 3_000}, {"timeout_us": 3_500}, 3_500),
    ],
)
def test_the_deadline_is_the_earliest_of_call_parameter_and_maximum_and_the_default_only_without_them(
    policy, wishes, expected_us
):
    with Harness() as plane:
        plane.lane(**policy)
        plane.send(0.0)
        plane.turn()
        plane.turn(100_000)  # so that the one above, which holds the executor, has no timer left
        plane.send(1.0, **wishes)
        plane.turn()
        due_us = run_due(plane.plane.timers, 0)
        assert (due_us and due_us - plane.now_us) == expected_us
        plane.finish_all()


def test_expiry_frees_the_rows_and_bytes_that_the_request_held():
    with Harness() as plane:
        lane = plane.lane(max_queue_rows=4)
        plane.send(0.0)
        plane.turn()
        plane.send([1.0, 2.0, 3.0, 4.0], grpc_timeout="10m")
        plane.turn(10_000)
        assert (lane.queued_rows, lane.queued_bytes) == (0, 0)
        call = plane.send([5.0, 6.0, 7.0, 8.0])
        plane.turn()
        plane.finish_all()
        assert call.code == OK


# --- refused early


def test_a_deadline_that_cannot_be_met_is_refused_when_its_turn_comes():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model)
        lane.learn(1, 20_000.0)
        hopeless, possible = plane.send(1.0, grpc_timeout="15m"), plane.send(2.0, grpc_timeout="25m")
        plane.turn()
        assert hopeless.code == DEADLINE_EXCEEDED
        assert (
            hopeless.text == "the deadline cannot be met: 15.0 ms are left, model 'm' version '1' needs about 20.0 ms"
        )
        plane.finish_all()
        assert possible.code == OK
        assert model.runs == [[2.0]]


def test_nothing_is_refused_early_before_anything_has_run():
    with Harness() as plane:
        plane.lane()
        call = plane.send(1.0, grpc_timeout="1m")
        plane.turn()
        plane.finish_all()
        assert call.code == OK


def test_what_is_left_of_a_split_request_is_what_it_still_needs():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4)
        for rows in (1, 4, 8):
            lane.learn(rows, 10_000.0 * rows)
        needed_us = int(lane.predicted_us(8))
        call = plane.send(list(map(float, range(8))), timeout_us=needed_us + 1_000)
        plane.turn()
        plane.turn(needed_us // 2)
        plane.finish_all()
        assert call.code == OK


def admitted_after(plane, **wishes):
    """How many are refused before one runs."""
    for n in range(1_000):
        call = plane.send(1.0, **wishes)
        plane.turn()
        if not call.is_answered:
            return n
        assert call.code == DEADLINE_EXCEEDED
    raise AssertionError("refused for ever")


def test_a_wrong_estimate_does_not_refuse_for_ever():
    with Harness() as plane:
        lane = plane.lane()
        lane.learn(1, 1_000_000.0)  # a warm-up under load; in truth it takes microseconds
        first = admitted_after(plane, grpc_timeout="10m")
        assert 10 <= first <= 100
        plane.finish()
        assert admitted_after(plane, grpc_timeout="10m") <= 1
        plane.finish()


def test_callers_with_hopeless_deadlines_change_nothing_for_others_once_one_has_run():
    """Nor do they talk a slow model onto the loop thread, by having its cost believed to be small."""
    with Harness() as plane:
        lane = plane.lane(inline_below_us=100)
        for _ in range(20):
            lane.learn(1, 5_000.0)
        assert admitted_after(plane, timeout_us=50) > 50
        assert len(plane.batches) == 1
        assert lane.statistics()["inline_batches"] == 0
        assert lane.predicted_us(1) == pytest.approx(5_000)


def test_a_run_as_long_as_expected_restores_the_estimate():
    with Harness() as plane:
        lane = plane.lane(lambda x: time.sleep(0.006) or [x[0]])
        lane.learn(1, 5_000.0)
        first = admitted_after(plane, timeout_us=2_000)
        plane.finish()
        assert first > 10
        assert plane.calls[plane._next_stream - 2].is_answered
        again = admitted_after(plane, timeout_us=2_000)
        assert again > 10
        plane.finish()
