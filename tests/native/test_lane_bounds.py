"""What a lane takes: queue bounds, priorities, instances, closing; and that its statistics add up."""

import sys

import numpy as np
import pytest

from gateway.native.lane import Lane
from gateway.native.signature import Signature
from gateway.native.timers import Timers
from tests.support.lanes import (
    INTERNAL,
    INVALID_ARGUMENT,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    Harness,
    Model,
    X,
    Y,
)


def hold(plane, **wishes):
    """A request that keeps the only executor busy."""
    call = plane.send(0.0, **wishes)
    plane.turn()
    return call


# --- queue


def test_a_queue_that_is_full_of_rows_refuses_and_says_its_bound():
    with Harness() as plane:
        lane = plane.lane(max_queue_rows=5)
        hold(plane)
        fits, over, small = plane.send([1.0] * 4), plane.send([1.0] * 2), plane.send(1.0)
        plane.turn()
        assert over.code == RESOURCE_EXHAUSTED
        assert over.text == (
            "the queue of model 'm' version '1' holds 4 rows, 2 more would pass its limit of 5 (queue_rows)"
        )
        assert lane.statistics()["refused_rows"] == 1
        plane.finish_all()
        assert (fits.code, small.code) == (OK, OK)


def test_a_queue_that_is_full_of_bytes_refuses_and_says_its_bound():
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, 1000))], max_queue_bytes=9_000)
        calls = [plane.send(np.zeros((1, 1000), np.float32)) for _ in range(3)]
        plane.turn()
        assert [call.code for call in calls] == [None, None, RESOURCE_EXHAUSTED]
        assert calls[2].text.endswith("would pass its limit of 9000 (queue_bytes)")
        assert lane.statistics()["refused_bytes"] == 1
        plane.finish_all()


@pytest.mark.parametrize("way", ["run", "cancel", "expire"])
def test_room_in_the_queue_comes_back_when_a_request_leaves_it(way):
    with Harness() as plane:
        lane = plane.lane(max_queue_rows=3)
        hold(plane)
        call = plane.send([1.0] * 3, grpc_timeout="1m" if way == "expire" else "")
        plane.turn()
        nbytes = lane.queued_bytes
        assert (lane.queued_rows, nbytes > 12) == (3, True)
        if way == "run":
            plane.finish()
        elif way == "cancel":
            plane.cancel(call)
        else:
            plane.turn(1_000)
        assert (lane.queued_rows, lane.queued_bytes) == (0, 0)
        again = plane.send([2.0] * 3)
        plane.turn()
        plane.finish_all()
        assert again.code == OK


def test_a_request_of_no_rows_counts_as_one_in_the_queue():
    with Harness() as plane:
        lane = plane.lane(max_queue_rows=2)
        hold(plane)
        calls = [plane.send(np.zeros((0, 1), np.float32)) for _ in range(3)]
        plane.turn()
        assert lane.queued_rows == 2
        assert calls[2].code == RESOURCE_EXHAUSTED
        plane.finish_all()
        assert [call.outputs["y"].shape for call in calls[:2]] == [(0, 1)] * 2


def test_requests_of_no_rows_run_beside_others_and_alone():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=2)
        none = np.zeros((0, 1), np.float32)
        calls = [plane.send(none), plane.send(1.0), plane.send(none), plane.send(2.0), plane.send(none)]
        plane.turn()
        plane.finish_all()
        assert model.runs == [[1.0, 2.0], []]
        assert [call.outputs["y"].ravel().tolist() for call in calls] == [[], [2.0], [], [4.0], []]


# --- priorities


def test_the_urgent_run_first_and_equals_in_order_of_arrival():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=2, priority_levels=3, default_priority=2)
        hold(plane)
        for value, priority in [(1.0, 3), (2.0, 0), (3.0, 1), (4.0, 2), (5.0, 1), (6.0, 3)]:
            plane.send(value, priority=priority)
        plane.turn()
        plane.finish_all()
        assert model.runs == [[0.0], [3.0, 5.0], [2.0, 4.0], [1.0, 6.0]]


def test_a_priority_beyond_the_levels_is_refused_by_name():
    with Harness() as plane:
        lane = plane.lane(priority_levels=3)
        call = plane.send(1.0, priority=4)
        plane.turn()
        assert call.code == INVALID_ARGUMENT
        assert call.text == "parameter 'priority': got 4, expected 1 to 3 for model 'm' version '1'"
        assert lane.statistics()["requests"] == {INVALID_ARGUMENT: 1}


def test_a_model_without_priorities_ignores_the_parameter():
    with Harness() as plane:
        plane.lane()
        call = plane.send(1.0, priority=1 << 40)
        plane.turn()
        plane.finish_all()
        assert call.code == OK


def test_an_urgent_one_goes_between_the_slices_of_a_large_request():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=4, priority_levels=2, default_priority=2)
        large = plane.send(list(map(float, range(10))))
        plane.turn()
        urgent = plane.send(99.0, priority=1)
        plane.turn()
        plane.finish_all()
        assert model.runs == [[0.0, 1.0, 2.0, 3.0], [99.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0]]
        assert large.rows == [2.0 * i for i in range(10)]
        assert urgent.rows == [198.0]


# --- instances


def test_as_many_batches_run_at_once_as_there_are_instances():
    with Harness() as plane:
        lane = plane.lane(instances=3)
        for i in range(5):
            plane.send(float(i))
            plane.turn()
        assert (len(plane.batches), lane.n_running, lane.n_queued) == (3, 3, 2)
        plane.finish(1)
        assert (len(plane.batches), lane.n_running, lane.n_queued) == (3, 3, 0)
        plane.finish_all()
        assert lane.n_running == 0


def test_instances_may_become_more_and_fewer_while_requests_wait():
    with Harness() as plane:
        lane = plane.lane(instances=1, max_batch_size=1)
        for i in range(6):
            plane.send(float(i))
        plane.turn()
        assert (lane.n_running, lane.n_queued) == (1, 5)
        lane.resize(3)
        plane.turn()
        assert (lane.n_running, lane.n_queued) == (3, 3)
        lane.resize(1)
        plane.finish()
        plane.finish()
        assert (lane.n_running, lane.n_queued) == (1, 3)
        assert plane.finish_all() == 4
        with pytest.raises(ValueError, match="instances: got 0, expected at least 1"):
            lane.resize(0)


# --- no batch dimension


def test_without_a_batch_dimension_every_request_runs_alone_and_whole():
    model = Model()
    with Harness() as plane:
        plane.lane(model, batched=False, inputs=[("x", "FP32", (-1, 2))], max_batch_size=64)
        calls = [plane.send(np.full((rows, 2), rows, np.float32)) for rows in (1, 3, 0)]
        plane.turn()
        assert plane.finish_all() == 3
        assert [call.outputs["y"].shape for call in calls] == [(1, 2), (3, 2), (0, 2)]


def test_scalars_go_in_and_out():
    with Harness() as plane:
        plane.lane(lambda x: [np.asarray(x[0] * 2)], batched=False, inputs=[("x", "FP64", ())])
        call = plane.send(np.array(1.5))
        plane.turn()
        plane.finish_all()
        assert call.outputs["y"].shape == ()
        assert call.outputs["y"] == 3.0


def test_the_answer_of_an_unbatched_model_may_have_another_first_dimension():
    with Harness() as plane:
        plane.lane(lambda x: [x[0].sum(0), x[0].reshape(-1)], batched=False, inputs=[("x", "FP32", (2, 3))],
                   outputs=[("a", "FP32", (3,)), ("b", "FP32", (-1,))])  # fmt: skip
        call = plane.send(np.arange(6, dtype=np.float32).reshape(2, 3))
        plane.turn()
        plane.finish_all()
        assert call.outputs["a"].tolist() == [3, 5, 7]
        assert call.outputs["b"].tolist() == [0, 1, 2, 3, 4, 5]


# --- closing


def test_a_closed_lane_refuses_what_comes_and_finishes_what_it_has():
    with Harness() as plane:
        lane = plane.lane()
        running = hold(plane)
        queued = plane.send(1.0)
        plane.turn()
        lane.close()
        late = plane.send(2.0)
        plane.turn()
        assert (late.code, late.text) == (UNAVAILABLE, "model 'm' version '1' is being unloaded")
        assert not lane.is_idle
        plane.finish_all()
        assert (running.code, queued.code) == (OK, OK)
        assert lane.is_idle
        assert lane.statistics()["requests"] == {OK: 2, UNAVAILABLE: 1}


def test_a_released_lane_lets_go_of_model_and_executor():
    model = Model()
    with Harness() as plane:
        before = sys.getrefcount(model)
        lane = plane.lane(model)
        assert sys.getrefcount(model) == before + 1
        lane.close()
        lane.release()
        assert sys.getrefcount(model) == before
        assert lane.runner is None


# --- construction


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        ({"priority_levels": 0}, "priority_levels: got 0"),
        ({"priority_levels": 17}, "expected 1 <= default <= levels <= 16"),
        ({"priority_levels": 2, "default_priority": 3}, "default_priority 3"),
        ({"instances": 0}, "instances: got 0, expected at least 1"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(policy, text):
    with pytest.raises(ValueError, match=text):
        Lane(Signature("m", "1", [X], [Y], True), None, None, None, Timers(), [], max_batch_size=1, **policy)


# --- statistics


def test_statistics_add_up_over_every_kind_of_outcome():
    model = Model(poison={13.0})
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=4, max_queue_rows=12, priority_levels=2)
        calls = [hold(plane)]
        calls += [plane.send(float(i)) for i in range(10, 16)]
        calls += [plane.send([1.0] * 6), plane.send([1.0] * 7), plane.send(1.0, priority=3)]
        plane.turn()
        plane.cancel(calls[1])
        plane.finish_all()
        calls.append(plane.send(1.0, grpc_timeout="1m"))
        plane.turn(2_000)
        lane.close()
        calls.append(plane.send(1.0))
        plane.turn()
        plane.expect_faults(RuntimeError)
        counts = lane.statistics()
        assert sum(counts["requests"].values()) + counts["cancelled"] == len(calls)
        for code, n in counts["requests"].items():
            assert n == sum(call.code == code for call in calls)
        assert set(counts["requests"]) == {OK, INVALID_ARGUMENT, 4, RESOURCE_EXHAUSTED, INTERNAL, UNAVAILABLE}
        assert counts["rows"] == 1 + 5 + 6
        assert counts["batches"] == sum(counts["releases"].values()) == 5
        assert counts["run_us"] >= 0


def test_queue_time_is_counted_once_for_each_request_that_ran():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=2)
        plane.send([0.0] * 2)
        plane.turn()
        plane.send([1.0] * 5)
        plane.send(2.0)
        plane.turn()
        plane.turn(300)
        plane.finish()
        assert lane.statistics()["queue_us"] == 300
        plane.turn(100)
        plane.finish()
        plane.turn(50)
        plane.finish()
        assert lane.statistics()["queue_us"] == 300 + 450
        plane.finish_all()
