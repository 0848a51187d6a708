"""When a batch is let go: at once by default; with max_delay when full, old enough, or a deadline would be missed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native.lane import decide_release
from gateway.native.timers import run_due
from tests.support.lanes import Harness, Model

MARGIN_US = 1_000


def slow_release(now_us, oldest_us, rows, max_rows, max_delay_us, deadline_us, predicted_us):
    """decide_release, said in words: the first reason that holds; else the first moment at which one will."""
    if rows >= max_rows:
        return "full", None
    if not max_delay_us:
        return "idle", None
    moments = {"delay": oldest_us + max_delay_us}
    if deadline_us:
        moments["deadline"] = deadline_us - int(predicted_us) - MARGIN_US
    for reason, moment in moments.items():
        if moment <= now_us:
            return reason, None
    return "wait", min(moments.values())


US = st.integers(0, 50_000)


@given(US, US, st.integers(0, 20), st.integers(1, 20), US, US, st.floats(0, 50_000))
def test_decide_release_is_its_slow_twin(now_us, oldest_us, rows, max_rows, max_delay_us, deadline_us, predicted_us):
    facts = now_us, oldest_us, rows, max_rows, max_delay_us, deadline_us, predicted_us
    assert decide_release(*facts) == slow_release(*facts)


@given(US, US, st.integers(0, 5), US, US, st.floats(0, 50_000))
def test_at_the_moment_it_names_it_decides_to_release(now_us, oldest_us, rows, max_delay_us, deadline_us, predicted_us):
    reason, wake_us = decide_release(now_us, oldest_us, rows, 6, max_delay_us, deadline_us, predicted_us)
    if reason == "wait":
        assert wake_us > now_us
        again = decide_release(wake_us, oldest_us, rows, 6, max_delay_us, deadline_us, predicted_us)
        before = decide_release(wake_us - 1, oldest_us, rows, 6, max_delay_us, deadline_us, predicted_us)
        assert (again[0] in ("delay", "deadline"), before) == (True, ("wait", wake_us))


def reasons(lane):
    return {reason: n for reason, n in lane.statistics()["releases"].items() if n}


# --- eager


def test_an_idle_executor_takes_what_is_there():
    with Harness() as plane:
        lane = plane.lane()
        plane.send(1.0)
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [1]
        assert reasons(lane) == {"idle": 1}


def test_what_arrives_during_a_run_is_the_next_batch():
    model = Model()
    with Harness() as plane:
        plane.lane(model)
        for i in range(6):
            plane.send(float(i))
            plane.turn()
        plane.finish_all()
        assert model.runs == [[0.0], [1.0, 2.0, 3.0, 4.0, 5.0]]


def test_a_batch_that_reaches_the_cap_is_full_whatever_is_left():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4)
        for i in range(9):
            plane.send(float(i))
        plane.turn()
        plane.finish_all()
        assert reasons(lane) == {"full": 2, "idle": 1}


def test_a_queue_that_is_long_but_of_other_shapes_makes_no_full_batch():
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, -1))], max_batch_size=4)
        for width in (1, 2, 1, 2, 3):
            plane.send(matrix(1, width))
        plane.turn()
        plane.finish_all()
        assert reasons(lane) == {"idle": 3}


def test_a_request_without_batch_dimension_is_a_full_batch():
    with Harness() as plane:
        lane = plane.lane(batched=False, inputs=[("x", "FP32", (2, 1))])
        plane.send([1.0, 2.0])
        plane.send([3.0, 4.0])
        plane.turn()
        assert plane.finish_all() == 2
        assert reasons(lane) == {"full": 2}


def test_bytes_close_a_batch_as_rows_do():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, inputs=[("x", "FP32", (-1, 1000))], max_batch_size=64, max_batch_bytes=10_000)
        for i in range(5):
            plane.send(matrix(1, 1000, float(i)))
        plane.turn()
        plane.finish_all()
        assert [len(run) for run in model.runs] == [2, 2, 1]
        assert reasons(lane) == {"full": 2, "idle": 1}


def test_one_request_above_the_byte_bound_runs_all_the_same():
    with Harness() as plane:
        plane.lane(max_batch_bytes=1)
        calls = [plane.send(1.0), plane.send(2.0)]
        plane.turn()
        assert plane.finish_all() == 2
        assert [call.rows for call in calls] == [[2.0], [4.0]]


def matrix(rows, width, value=1.0):
    return np.full((rows, width), value, np.float32)


# --- shapes


def test_different_inner_shapes_never_join():
    model = Model()
    with Harness() as plane:
        plane.lane(model, inputs=[("x", "FP32", (-1, -1, -1))], max_batch_size=64)
        shapes = [(1, 2, 6), (1, 6, 2), (1, 3, 4), (1, 2, 6), (1, 6, 2), (1, 12, 1), (2, 2, 6)]
        calls = [plane.send(np.full(shape, i, np.float32)) for i, shape in enumerate(shapes)]
        plane.turn()
        plane.finish_all()
        assert model.runs == [[0.0, 3.0, 6.0, 6.0], [1.0, 4.0], [2.0], [5.0]]
        for i, call in enumerate(calls):
            assert list(call.response.outputs[0].shape) == list(shapes[i])


def test_shapes_that_differ_between_inputs_do_not_join_either():
    model = Model()
    with Harness() as plane:
        plane.lane(model, inputs=[("x0", "FP32", (-1, -1)), ("x1", "FP32", (-1, -1))], max_batch_size=64)
        for left, right in [(1, 2), (2, 1), (1, 2), (1, 1), (2, 1)]:
            plane.send(matrix(1, left), matrix(1, right))
        plane.turn()
        plane.finish_all()
        assert [len(run) for run in model.runs] == [2, 2, 1]


@pytest.mark.parametrize("first", [0, 1])
def test_shapes_of_equal_hash_are_told_apart(first):
    """Of no rows, so that the dimensions that make FNV collide need no data."""
    inputs = [("x0", "UINT8", (-1, 1)), ("x1", "UINT8", (-1, -1, -1))]
    names = ["x0", "x1"] if first == 0 else ["x1", "x0"]
    with Harness() as plane:
        plane.lane(Model(), inputs=inputs if first == 0 else inputs[::-1], outputs=[("y", "UINT8", (-1, 1))] * 2)
        none = np.zeros((0, 1), np.uint8)
        for inner in [(0, 1 ^ 0x1B3 << 24), (1 << 24, 1)]:
            plane.send(none, none, names=names, shapes=[(0, 1), (0, *inner)][:: 1 if first == 0 else -1])
        plane.turn()
        assert plane.finish_all() == 2


def test_a_large_neighbour_of_another_shape_does_not_close_the_batch():
    model = Model()
    with Harness() as plane:
        plane.lane(model, inputs=[("x", "FP32", (-1, -1))], max_batch_size=64, max_batch_bytes=5_000)
        plane.send(matrix(1, 1, 1.0))
        plane.send(matrix(1, 2000, 2.0))
        plane.send(matrix(1, 1, 3.0))
        plane.turn()
        plane.finish_all()
        assert model.runs == [[1.0, 3.0], [2.0]]


# --- max_delay


def test_max_delay_holds_a_batch_until_its_oldest_has_waited_so_long():
    with Harness() as plane:
        lane = plane.lane(max_delay_us=500)
        plane.send(1.0)
        plane.turn()
        assert next_due_us(plane) == plane.now_us + 500
        plane.turn(300)
        plane.send(2.0)
        plane.turn()
        assert next_due_us(plane) == plane.now_us + 200
        plane.turn(199)
        assert not plane.batches
        plane.turn(1)
        assert [batch.n_rows for batch in plane.batches] == [2]
        assert reasons(lane) == {"delay": 1}


def test_max_delay_lets_a_full_batch_go_at_once():
    with Harness() as plane:
        lane = plane.lane(max_delay_us=500, max_batch_size=4)
        for i in range(5):
            plane.send(float(i))
            plane.turn(10)
        assert [batch.n_rows for batch in plane.batches] == [4]
        plane.finish()
        assert not plane.batches
        plane.turn(500)
        assert [batch.n_rows for batch in plane.batches] == [1]
        assert reasons(lane) == {"full": 1, "delay": 1}


def test_a_deadline_releases_a_held_batch_in_time_to_run():
    with Harness() as plane:
        lane = plane.lane(max_delay_us=50_000)
        lane.learn(1, 2_000.0)
        plane.send(1.0)
        plane.send(2.0, grpc_timeout="10m")
        plane.turn()
        wake_us = plane.now_us + 10_000 - MARGIN_US - int(lane.predicted_us(3))
        assert next_due_us(plane) == wake_us
        plane.turn(wake_us - plane.now_us - 1)
        assert not plane.batches
        plane.turn(1)
        assert [batch.n_rows for batch in plane.batches] == [2]
        assert reasons(lane) == {"deadline": 1}


def test_when_the_one_that_set_the_alarm_leaves_the_others_wait_their_own_time():
    with Harness() as plane:
        plane.lane(max_delay_us=500)
        first = plane.send(1.0)
        plane.turn()
        plane.turn(200)
        plane.send(2.0)
        plane.turn()
        plane.cancel(first)
        plane.turn(300)
        assert not plane.batches
        assert next_due_us(plane) == plane.now_us + 200
        plane.turn(200)
        assert [batch.n_rows for batch in plane.batches] == [1]


def test_an_alarm_that_finds_the_queue_empty_does_nothing():
    with Harness() as plane:
        plane.lane(max_delay_us=500)
        call = plane.send(1.0)
        plane.turn()
        plane.cancel(call)
        plane.turn(500)
        assert not plane.batches
        assert next_due_us(plane) is None


def test_time_that_passed_while_executors_were_busy_counts_as_delay():
    with Harness() as plane:
        lane = plane.lane(max_delay_us=500)
        plane.send(1.0)
        plane.turn()
        plane.turn(500)
        plane.send(2.0)
        plane.turn()
        plane.turn(700)
        plane.finish()
        assert [batch.n_rows for batch in plane.batches] == [1]
        assert reasons(lane) == {"delay": 2}


def test_under_delay_only_rows_that_can_run_together_count_towards_full():
    with Harness() as plane:
        lane = plane.lane(inputs=[("x", "FP32", (-1, -1))], max_delay_us=500, max_batch_size=3)
        for width in (1, 2, 1, 2):
            plane.send(matrix(1, width))
        plane.turn()
        assert not plane.batches
        plane.send(matrix(1, 1))
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [3]
        plane.finish_all()
        plane.turn(500)
        plane.finish_all()
        assert reasons(lane) == {"full": 1, "delay": 1}


def test_the_alarm_of_a_lane_that_was_released_rings_for_nobody():
    with Harness() as plane:
        lane = plane.lane(max_delay_us=500)
        call = plane.send(1.0)
        plane.turn()
        plane.cancel(call)
        lane.close()
        lane.release()
        assert len(plane.plane.timers) == 0
        plane.turn(1_000)
        assert plane.plane.pending == []


@pytest.mark.parametrize("max_delay_us", [0, 500])
def test_a_turn_without_news_changes_nothing(max_delay_us):
    with Harness() as plane:
        lane = plane.lane(max_delay_us=max_delay_us)
        plane.send(1.0)
        plane.turn()
        before = lane.statistics()
        for _ in range(5):
            plane.turn(10)
        assert lane.statistics() == before


def next_due_us(plane):
    return run_due(plane.plane.timers, 0)


# --- large requests


LARGE = [("x", "FP32", (-1, 20_000))]  # 80 kB a row


def large(rows):
    return np.zeros((rows, 20_000), np.float32)


def test_a_request_that_company_gains_nothing_runs_alone_and_nobody_overtakes_it():
    with Harness() as plane:
        plane.lane(inputs=LARGE, alone_bytes=100_000, instances=10)
        for rows in (1, 1, 2, 1, 1):
            plane.send(large(rows))
        plane.turn()
        assert [(batch.n_rows, batch.n_members) for batch in plane.batches] == [(2, 2), (2, 1), (2, 2)]
        plane.finish_all()


def test_a_request_that_runs_alone_waits_for_nobody():
    with Harness() as plane:
        plane.lane(inputs=LARGE, alone_bytes=70_000, max_delay_us=1_000)
        plane.send(large(1))
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [1]
        plane.finish_all()


def test_a_request_that_runs_alone_is_split_where_it_is_larger_than_a_batch():
    with Harness() as plane:
        plane.lane(inputs=LARGE, alone_bytes=70_000, max_batch_size=2, instances=10)
        call = plane.send(large(5))
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [2, 2, 1]
        plane.finish_all()
        assert call.outputs["y"].shape == (5, 20_000)
