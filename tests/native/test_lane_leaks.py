"""What a request brings is given back, by whichever way it leaves."""

import gc
import sys

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.native.counters import is_debug, live
from gateway.native.lane import Lane
from tests.support.lanes import Harness, Model

TEXT = "a string that nobody else holds: " + "x" * 40


def way_ok(plane, call):
    plane.finish_all()


def way_cancel(plane, call):
    plane.cancel(call)


def way_cancel_running(plane, call):
    plane.finish()
    plane.cancel(call)
    plane.finish_all()


def way_expire(plane, call):
    plane.turn(1_000_000)


def way_expire_running(plane, call):
    plane.finish()
    plane.turn(1_000_000)
    plane.finish_all()


def way_disconnect(plane, call):
    plane.shut()


WAYS = [way_ok, way_cancel, way_cancel_running, way_expire, way_expire_running, way_disconnect]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__[4:])
@pytest.mark.parametrize("rows", [1, 5])
def test_bytes_and_native_objects_come_back(way, rows):
    gc.collect()
    before = live()  # other modules of tests may hold messages
    with Harness() as plane:
        plane.lane(max_batch_size=2)
        plane.send(0.0)
        plane.turn()
        call = plane.send([1.0] * rows, grpc_timeout="1S")
        plane.turn()
        assert plane.plane.budget.used > 0
        way(plane, call)
        plane.finish_all()
        assert plane.plane.budget.used == 0
        if is_debug():
            gc.collect()
            assert {kind: live()[kind] - before[kind] for kind in ("request", "batch", "body")} == {
                "request": 0,
                "batch": 0,
                "body": 0,
            }


def test_strings_of_a_batch_are_let_go():
    kept = []

    def run(x):
        kept.append(x[0][0, 0])
        return [x[0]]

    with Harness() as plane:
        plane.lane(run, inputs=[("x", "BYTES", (-1, 1))], max_batch_size=2)
        plane.send(np.array([[TEXT]] * 5, object))
        plane.turn()
        plane.finish_all()
        assert [sys.getrefcount(text) for text in kept] == [3] * 3  # the list, the loop variable, the argument


def test_the_cells_that_strings_replace_are_let_go():
    """np.empty fills an object array with None."""
    texts = np.array([["a"]] * 4_000, object)
    with Harness() as plane:
        plane.lane(lambda x: [x[0]], inputs=[("x", "BYTES", (-1, 1))], max_batch_size=4_000)
        before = sys.getrefcount(None)
        plane.send(texts)
        plane.turn()
        plane.finish_all()
        assert sys.getrefcount(None) - before < 1_000


def test_arrays_of_a_batch_are_let_go():
    arrays = []

    class Kept(np.ndarray):
        def __del__(self):
            arrays.append(id(self))

    with Harness() as plane:
        plane.lane(lambda x: [np.ones((len(x[0]), 1), np.float32).view(Kept)], max_batch_size=2)
        plane.send([1.0] * 5)
        plane.turn()
        plane.finish_all()
        gc.collect()
        assert len(set(arrays)) >= 1
        assert not [found for found in gc.get_objects() if type(found) is Kept]


def test_an_exception_of_the_model_is_not_held_by_the_lane():
    error = InvalidArgument("no")
    before = sys.getrefcount(error)
    with Harness() as plane:
        plane.lane(Model(poison={1.0}, error=lambda: error))
        for _ in range(3):
            plane.send(1.0)
            plane.turn()
            plane.finish()
        error.__traceback__ = None
        gc.collect()
        assert sys.getrefcount(error) == before


@pytest.mark.parametrize("is_released", [True, False])
def test_a_lane_that_nobody_holds_goes(is_released):
    """Also one that was never released: it and its alarm hold each other, which the collector sees."""
    gc.collect()
    before = n_lanes()
    with Harness() as plane:
        lane = plane.lane(max_delay_us=100)
        plane.send(1.0)
        plane.turn(50)
        plane.turn(100)
        plane.finish_all()
        if is_released:
            lane.close()
            lane.release()
        assert n_lanes() == before + 1
        del lane
    del plane
    gc.collect()
    assert n_lanes() == before


def n_lanes():
    return sum(type(found) is Lane for found in gc.get_objects())


@pytest.mark.leak
def test_memory_does_not_grow_over_many_requests():
    import resource

    def once():
        with Harness(streams=1_000) as plane:
            plane.lane(Model(poison={3.0}), inputs=[("x", "FP32", (-1, 2_000))], max_batch_size=4)
            for i in range(50):
                plane.send(np.full((1 + i % 6, 2_000), i % 5, np.float32), grpc_timeout="1S" if i % 2 else "")
            plane.turn()
            for call in list(plane.calls.values())[::7]:
                plane.cancel(call)
            plane.finish_all()
            plane.faults.clear()

    def growth_kib():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(10):
            once()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before

    for _ in range(5):
        once()
    assert any(growth_kib() < 1_000 for _ in range(3))  # a leak is there each time
