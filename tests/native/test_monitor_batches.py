"""A lane's batches on a monitor: each member's rows on the tile of its arm, what failed on none, nobody harmed."""

import numpy as np
import pytest

from gateway.monitoring.tile import TileCounts, decode
from gateway.native.arm import Arm
from gateway.native.monitor import Monitor
from gateway.native.route import Target
from gateway.native.routetable import RouteTable
from gateway.native.signature import Signature
from gateway.native.tileplan import TilePlan
from tests.support import tiletwin as twin
from tests.support.lanes import INTERNAL, INVALID_ARGUMENT, OK, Harness, Model

COLUMNS = [twin.numeric("x", [0.0, 10.0, 20.0, 30.0]), twin.numeric("y", [0.0, 20.0, 40.0], role="output", tensor="y")]


def watched(
    plane: Harness, columns=COLUMNS, inputs=(("x", "FP32", (-1, 1)),), outputs=(("y", "FP32", (-1, 1)),), **policy
):
    lane = plane.lane(inputs=inputs, outputs=outputs, **policy)
    lane.monitor = Monitor(TilePlan(columns), Signature("m", "1", inputs, outputs, True))
    lane.monitor.cut(1e9)
    return lane


def tiles(lane) -> dict[tuple[str, int], TileCounts]:
    return {(arm, stage): decode(lane.monitor.plan, blob) for arm, stage, _, blob in lane.monitor.cut(1e9)}


def under(plane, lane, arm):
    """From now on requests fall on that arm."""
    plane.plane.routes = RouteTable({"m": {"": Target("1", lane, arm)}})


@pytest.mark.parametrize("inline_below_us", [0, 10**9])
def test_a_batch_of_several_arms_is_counted_on_each_its_own_rows(inline_below_us):
    with Harness() as plane:
        lane = watched(plane, inline_below_us=inline_below_us, max_batch_size=100)
        lane.learn(1, 1.0)
        arms = [Arm("m", "1", "stable", 3), Arm("m", "1", "candidate", 3), None]
        given = {arm: [] for arm in arms}
        for i in range(30):
            arm = arms[(i * i) % 3]
            under(plane, lane, arm)
            rows = [float(i)] * (1 + i % 4)
            given[arm] += rows
            plane.send(rows)
            plane.plane.turn(plane.now_us) if i == 0 else plane.turn()
        plane.finish_all()
        found = tiles(lane)
        assert set(found) == {("stable", 3), ("candidate", 3), ("", 0)} - ({("", 0)} if not given[None] else set())
        for arm, rows in given.items():
            if not rows:
                continue
            tile = found[(arm.name, arm.stage) if arm else ("", 0)]
            x = np.array(rows, np.float32).reshape(-1, 1)
            twin.same(tile.columns, twin.counts(lane.monitor.plan, {("input", "x"): x, ("output", "y"): 2 * x}))
            assert tile.n_rows == len(rows)
        assert sum(tile.n_requests for tile in found.values()) == 30


def test_a_batch_that_ran_on_another_server_is_counted_like_one_of_this_process():
    with Harness() as plane:
        lane = watched(plane)
        calls = [plane.send([value]) for value in (1.0, 12.0, 25.0)]
        plane.turn()
        batch = plane.batches.pop()
        batch.begin()
        unaligned = np.frombuffer(b"." + np.array([2, 24], np.float32).tobytes(), np.float32, 2, 1).reshape(2, 1)
        assert batch.accept(0, 2, [unaligned])
        batch.refuse(2, 3, INTERNAL, "no")
        batch.end()
        plane.settle(batch)
        del batch
        assert [call.code for call in calls] == [OK, OK, INTERNAL]
        (found,) = tiles(lane).values()
        assert found.columns["x"]["counts"].tolist() == [1, 1, 0]
        assert found.columns["y"]["counts"].tolist() == [1, 1]
        assert found.codes == {"OK": 2, "INTERNAL": 1}


def test_a_request_that_failed_is_counted_as_failed_and_its_rows_are_not():
    with Harness() as plane:
        lane = watched(plane, run=Model(poison={13.0}))
        calls = [plane.send([value]) for value in (1.0, 2.0, 13.0, 4.0)]
        plane.turn()
        plane.finish_all()
        assert [call.code for call in calls] == [OK, OK, INTERNAL, OK]
        plane.expect_faults(RuntimeError)
        (found,) = tiles(lane).values()
        assert found.columns["x"]["counts"].tolist() == [3, 0, 0]
        assert found.codes == {"OK": 3, "INTERNAL": 1}
        assert int(found.latency.sum()) == 3
        assert (found.n_requests, found.n_violations) == (4, 0)


def test_a_request_larger_than_a_batch_is_one_request_and_each_row_once():
    with Harness() as plane:
        lane = watched(plane, max_batch_size=4)
        call = plane.send([float(i) for i in range(30)])
        plane.turn()
        plane.finish_all()
        assert len(call.rows) == 30
        (found,) = tiles(lane).values()
        assert found.columns["x"]["counts"].tolist() == [10, 10, 10]
        assert (found.n_rows, found.n_requests) == (30, 1)


def test_a_request_that_does_not_fit_is_a_violation_and_no_row():
    with Harness() as plane:
        lane = watched(plane)
        calls = [plane.send([1.0], shapes=[[1, 2]]), plane.send(np.zeros((1, 1), np.int64)), plane.send([1.0])]
        plane.turn()
        plane.finish_all()
        assert [call.code for call in calls] == [INVALID_ARGUMENT, INVALID_ARGUMENT, OK]
        (found,) = tiles(lane).values()
        assert (found.n_violations, found.n_requests, found.n_rows) == (2, 1, 1)
        assert found.codes == {"OK": 1, "INVALID_ARGUMENT": 2}


def test_texts_are_read_from_the_wire_also_of_a_request_that_is_cut():
    def answer(inputs):
        return [np.array([[f"<{text}>"] for text in inputs[0][:, 0]], object)]

    specs = [("x", "BYTES", (-1, 2))], [("y", "BYTES", (-1, 1))]
    columns = [
        twin.categorical("first", ["a", "ü"]),
        twin.categorical("second", ["b"], index=1),
        twin.categorical("answer", ["<a>"], role="output", tensor="y"),
    ]
    with Harness() as plane:
        lane = watched(plane, columns, *specs, run=answer, max_batch_size=3)
        rows = np.array([["a", "b"], ["ü", ""], ["zz", "b"], ["", "c"], ["a", "b"], ["new", "b"], ["a", "x"]], object)
        for part in (rows[:1], rows[1:]):
            plane.send(part)
        plane.turn()
        plane.finish_all()
        (found,) = tiles(lane).values()
        answers = np.array([[f"<{text}>"] for text in rows[:, 0]], object)
        twin.same(found.columns, twin.counts(lane.monitor.plan, {("input", "x"): rows, ("output", "y"): answers}))
        assert dict(found.outside["first"].most) == {"zz": 1, "new": 1}
        assert dict(found.outside["answer"].most) == {"<ü>": 1, "<zz>": 1, "<>": 1, "<new>": 1}


def test_a_cancelled_request_that_ran_was_real_input():
    with Harness() as plane:
        lane = watched(plane)
        calls = [plane.send([1.0]), plane.send([11.0])]
        plane.turn()
        plane.cancel(calls[0])
        plane.finish_all()
        (found,) = tiles(lane).values()
        assert found.columns["x"]["counts"].tolist() == [1, 1, 0]
        assert found.n_requests == 1


def test_latency_is_counted_from_admission_to_answer():
    with Harness() as plane:
        lane = watched(plane)
        for wait_us in (40, 1000):
            plane.send([1.0])
            plane.turn()
            plane.now_us += wait_us
            plane.finish()
        (found,) = tiles(lane).values()
        assert np.flatnonzero(found.latency).tolist() == [40, 32 * 4 + (1000 >> 4)]


def test_a_lane_without_a_monitor_counts_nothing_and_a_monitor_may_come_and_go():
    with Harness() as plane:
        lane = watched(plane)
        monitor = lane.monitor
        for wanted in (None, monitor, None):
            lane.monitor = wanted
            plane.send([1.0])
            plane.turn()
            plane.finish()
        lane.monitor = monitor
        (found,) = tiles(lane).values()
        assert found.n_rows == 1
