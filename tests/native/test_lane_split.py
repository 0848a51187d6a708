"""A request larger than the batch cap is split, and its caller sees nothing of that."""

import itertools

import numpy as np
import pytest

from tests.support.lanes import DEADLINE_EXCEEDED, INTERNAL, OK, Harness, Model

ROWS = list(map(float, range(10)))


def test_it_runs_in_slices_of_the_cap_and_is_rejoined_in_row_order():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=4)
        call = plane.send(ROWS)
        plane.turn()
        assert plane.finish_all() == 3
        assert model.runs == [ROWS[:4], ROWS[4:8], ROWS[8:]]
        assert call.rows == [2 * row for row in ROWS]
        assert list(call.response.outputs[0].shape) == [10, 1]
        assert lane.statistics()["requests"] == {OK: 1}
        assert lane.statistics()["rows"] == 10


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_its_slices_may_complete_in_any_order(order):
    with Harness() as plane:
        plane.lane(max_batch_size=4, instances=3)
        call = plane.send(ROWS)
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [4, 4, 2]
        plane.batches[:] = [plane.batches[i] for i in order]
        while plane.batches:
            assert not call.is_answered
            plane.finish()
        assert call.rows == [2 * row for row in ROWS]


def test_the_last_slice_shares_its_batch_with_what_came_after():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=4)
        large, small = plane.send(ROWS[:6]), plane.send([7.0, 8.0])
        plane.turn()
        plane.finish_all()
        assert model.runs == [ROWS[:4], [4.0, 5.0, 7.0, 8.0]]
        assert (large.rows, small.rows) == ([2 * row for row in ROWS[:6]], [14.0, 16.0])


def test_nobody_overtakes_a_large_request_that_does_not_fit():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=4)
        plane.send([1.0, 2.0])
        plane.send([3.0, 4.0, 5.0])
        plane.send(6.0)
        plane.turn()
        plane.finish_all()
        assert model.runs == [[1.0, 2.0], [3.0, 4.0, 5.0, 6.0]]


@pytest.mark.parametrize("slice_", [0, 1, 2])
@pytest.mark.parametrize("instances", [1, 3])
def test_one_failing_slice_fails_the_request_once(slice_, instances):
    model = Model(poison={[1.0, 5.0, 9.0][slice_]})
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=4, instances=instances)
        call, other = plane.send(ROWS), plane.send([20.0])
        plane.turn()
        plane.finish_all()
        assert call.code == INTERNAL
        assert other.rows == [40.0]
        assert lane.statistics()["requests"] == {OK: 1, INTERNAL: 1}
        plane.expect_faults(RuntimeError)


def test_after_a_slice_has_failed_the_rest_does_not_run():
    model = Model(poison={1.0})
    with Harness() as plane:
        plane.lane(model, max_batch_size=4)
        plane.send(ROWS)
        plane.turn()
        assert plane.finish_all() == 1
        plane.expect_faults(RuntimeError)


@pytest.mark.parametrize("n_done", [0, 1, 2])
@pytest.mark.parametrize("instances", [1, 2, 3])
def test_a_caller_who_cancels_midway_stops_what_has_not_run(n_done, instances):
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=4, instances=instances)
        call = plane.send(ROWS)
        plane.turn()
        for _ in range(n_done):
            plane.finish()
        plane.cancel(call)
        n_out = len(plane.batches)
        assert plane.finish_all() == n_out
        assert not call.is_answered
        assert lane.is_idle
        assert lane.statistics()["cancelled"] == 1


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_a_deadline_that_passes_midway_stops_what_has_not_run(n_done):
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4)
        call = plane.send(ROWS, grpc_timeout="100S")
        plane.turn()
        for _ in range(n_done):
            plane.finish()
        plane.turn(100_000_000)
        assert call.code == DEADLINE_EXCEEDED
        plane.finish_all()
        assert (call.body, call.n_ends) == (b"", 1)
        assert lane.statistics()["requests"] == {DEADLINE_EXCEEDED: 1}


def test_the_queue_counts_only_rows_that_have_not_been_taken():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4, max_queue_rows=10)
        plane.send(ROWS)
        plane.turn()
        assert lane.queued_rows == 6
        more = plane.send(ROWS[:4])
        plane.turn()
        assert lane.queued_rows == 10
        assert not more.is_answered
        plane.finish_all()


@pytest.mark.parametrize("n_done", [0, 1, 2])
def test_a_split_request_that_leaves_takes_exactly_its_rows_from_the_queue(n_done):
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4)
        call = plane.send(ROWS)
        plane.send([1.0])
        plane.turn()
        for _ in range(n_done):
            plane.finish()
        plane.cancel(call)
        assert lane.queued_rows == lane.n_queued == (0 if n_done == 2 else 1)
        plane.finish_all()


def test_the_rest_of_a_split_request_is_no_full_batch():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=4)
        plane.send(ROWS)
        plane.turn()
        plane.finish_all()
        assert lane.statistics()["releases"] == {"full": 2, "idle": 1, "delay": 0, "deadline": 0}


def test_under_max_delay_the_rest_waits_for_company_no_longer_than_that():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=4, max_delay_us=1_000, instances=2)
        plane.send(ROWS[:6])
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [4]
        plane.turn(999)
        assert len(plane.batches) == 1
        plane.turn(1)
        assert [batch.n_rows for batch in plane.batches] == [4, 2]
        plane.finish_all()
        assert lane.statistics()["releases"] == {"full": 1, "idle": 0, "delay": 1, "deadline": 0}


def test_several_outputs_and_strings_are_rejoined_too():
    inputs = [("x0", "FP32", (-1, 3)), ("x1", "BYTES", (-1, 2)), ("x2", "INT64", (-1,))]
    outputs = [("a", "BYTES", (-1, 2)), ("b", "INT64", (-1,)), ("c", "FP32", (-1, 3))]
    numbers = np.arange(33, dtype=np.float32).reshape(11, 3)
    texts = np.array([[f"é{i}" * (i % 3), f"-{i}"] for i in range(11)], object)
    counts = np.arange(11)
    with Harness() as plane:
        plane.lane(
            lambda given: [given[1].copy(), given[2], given[0]],
            inputs=inputs,
            outputs=outputs,
            max_batch_size=3,
            instances=4,
        )
        whole = plane.send(numbers, texts, counts)
        some = plane.send(numbers, texts, counts, outputs=["c", "a"])
        plane.turn()
        while plane.batches:
            plane.finish(-1)
        assert list(whole.outputs) == ["a", "b", "c"]
        assert list(some.outputs) == ["c", "a"]
        for answer in (whole.outputs, some.outputs):
            np.testing.assert_array_equal(answer["c"], numbers)
            assert [text.decode() for text in answer["a"].ravel()] == list(texts.ravel())
        np.testing.assert_array_equal(whole.outputs["b"], counts)


def test_slices_that_do_not_fit_together_fail_the_request_and_tell_the_log():
    widths = iter([1, 2, 1])

    with Harness() as plane:
        plane.lane(lambda x: [np.zeros((len(x[0]), next(widths)), np.float32)], max_batch_size=4)
        call = plane.send(ROWS)
        plane.turn()
        plane.finish_all()
        assert (call.code, call.text) == (INTERNAL, "model 'm' version '1': the answer could not be put together")
        plane.expect_faults(ValueError)


def test_a_cap_of_one_row_runs_every_row_alone():
    model = Model()
    with Harness() as plane:
        plane.lane(model, max_batch_size=1)
        call = plane.send(ROWS[:3])
        plane.turn()
        plane.finish_all()
        assert model.runs == [[0.0], [1.0], [2.0]]
        assert call.rows == [0.0, 2.0, 4.0]
