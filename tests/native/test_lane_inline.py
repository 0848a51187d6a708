"""A model quicker than a thread hop runs on the loop thread, one batch a turn; a slower one never does."""

import threading
import time

from gateway.errors import InvalidArgument
from tests.support.lanes import INTERNAL, OK, Harness, Model


def test_below_the_threshold_it_runs_inline_and_above_it_hops():
    with Harness() as plane:
        lane = plane.lane(inline_below_us=100)
        for rows in range(1, 9):
            lane.learn(rows, 20.0 * rows)
        quick, slow = plane.send([1.0] * 4), plane.send([1.0] * 8)
        plane.turn()
        assert quick.code == OK
        assert [batch.n_rows for batch in plane.batches] == [8]
        assert lane.statistics()["inline_batches"] == 1
        plane.finish_all()
        assert slow.code == OK


def test_before_anything_was_measured_it_hops():
    with Harness() as plane:
        lane = plane.lane(inline_below_us=100)
        plane.send(1.0)
        plane.turn()
        assert len(plane.batches) == 1
        assert lane.statistics()["inline_batches"] == 0


def test_a_lane_that_runs_inline_answers_within_the_turn_on_the_same_thread():
    threads = []

    def run(x):
        threads.append(threading.current_thread())
        return [x[0]]

    with Harness() as plane:
        lane = plane.lane(run, inline_below_us=1_000_000_000, max_batch_size=2)
        lane.learn(1, 1.0)
        calls = [plane.send(float(i)) for i in range(5)]
        plane.turn()
        assert [call.rows for call in calls] == [[float(i)] for i in range(5)]
        assert threads == [threading.current_thread()] * 3
        assert lane.statistics()["inline_batches"] == 3
        assert lane.is_idle


def test_a_failure_inline_is_treated_as_one_on_an_executor():
    with Harness() as plane:
        lane = plane.lane(Model(poison={1.0}), inline_below_us=1_000_000)
        lane.learn(1, 1.0)
        calls = [plane.send(float(i)) for i in range(4)]
        plane.turn()
        assert [call.code for call in calls] == [OK, INTERNAL, OK, OK]
        plane.expect_faults(RuntimeError)
        assert lane.is_idle


def test_a_model_that_becomes_slow_leaves_the_loop_thread():
    with Harness() as plane:
        lane = plane.lane(lambda x: time.sleep(0.001) or [x[0]], inline_below_us=100)
        for _ in range(50):
            lane.learn(1, 20.0)
        while not plane.batches:
            plane.send(1.0)
            plane.turn()
        assert 0 < lane.statistics()["inline_batches"] < 100
        plane.finish_all()


def test_failing_runs_teach_nothing_about_cost():
    """Halving runs a batch several times over: taken for its cost, bad requests would slow the estimate for all."""
    with Harness() as plane:
        lane = plane.lane(Model(poison={1.0}, error=lambda: InvalidArgument("no")))
        lane.learn(1, 50.0)
        lane.learn(8, 80.0)
        before = lane.predicted_us(4)
        for _ in range(5):
            calls = [plane.send(float(i)) for i in range(4)]
            plane.turn()
            plane.finish()
            assert [call.code for call in calls] == [OK, 3, OK, OK]
        assert lane.predicted_us(4) == before
