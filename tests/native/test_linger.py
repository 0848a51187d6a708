"""An idle executor waits a moment for companions, where it has learnt that they come and are worth it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native.lane import Lane
from tests.support.lanes import OK, Harness, Model

FIXED_US = 2_000  # of the costs that are taught; the longest wait is half of it
BACK_US = 50  # from an answer to the next request of the first ones
WAVES = 30


def teach(lane, fixed_us: float = FIXED_US, row_us: float = 1) -> None:
    """As if runs had cost this; those of the test are done in no time, and would be learnt too."""
    for _ in range(300):
        for rows in (1, 2, 4, 8, 16):
            lane.learn(rows, fixed_us + row_us * rows)


def wave(plane: Harness, lane, model: Model, gap_us: int = 100, first: int = 2, later: int = 6) -> list[int]:
    """Callers that were answered together ask again nearly together; returns the batches that they ended in."""
    teach(lane)
    model.runs.clear()
    plane.turn(BACK_US)
    calls = [plane.send(float(i)) for i in range(first)]
    plane.turn()
    calls += [plane.send(float(i)) for i in range(later)]
    plane.turn(gap_us)
    while not all(call.is_answered for call in calls):
        plane.finish_all()
        plane.turn(FIXED_US // 4)
    assert [call.code for call in calls] == [OK] * (first + later)
    return [len(run) for run in model.runs]


@contextmanager
def learnt(max_batch_size: int = 64, **policy: int) -> Iterator[tuple[Harness, Lane, Model]]:
    """An idle lane that has just answered eight callers, and knows that they come back; what it is given is run."""
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=max_batch_size, **policy)
        for _ in range(WAVES):
            wave(plane, lane, model)
        teach(lane)
        plane.turn(BACK_US)
        yield plane, lane, model
        plane.finish_all()


def test_those_who_come_together_run_together_once_it_was_learnt():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=64)
        seen = [wave(plane, lane, model) for _ in range(WAVES)]
        assert seen[0] == [2, 6]
        assert seen[-5:] == [[8]] * 5


def test_told_not_to_it_never_waits():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=64, lingers=False)
        assert [wave(plane, lane, model) for _ in range(WAVES)] == [[2, 6]] * WAVES


def test_it_goes_on_when_they_are_there_and_does_not_wait_for_the_window_to_end():
    with learnt() as (plane, _, _):
        for i in range(2):
            plane.send(float(i))
        plane.turn()
        assert plane.batches == []
        for i in range(6):
            plane.send(float(i))
        plane.turn(10)
        assert [batch.n_rows for batch in plane.batches] == [8]


def test_who_waits_in_vain_waits_half_of_a_runs_fixed_cost_at_most():
    with learnt() as (plane, _, _):
        plane.send(1.0)
        plane.turn()
        plane.turn(FIXED_US // 2 - 10)
        assert plane.batches == []
        plane.turn(20)
        assert [batch.n_rows for batch in plane.batches] == [1]


def test_when_they_come_no_more_it_waits_no_more():
    with learnt() as (plane, lane, model):
        for _ in range(WAVES):
            wave(plane, lane, model, first=1, later=0)
        teach(lane)
        plane.send(1.0)
        plane.turn()
        assert len(plane.batches) == 1


@pytest.mark.parametrize("later", [0, 1])
def test_a_caller_alone_is_never_held(later: int):
    """Its next request comes when it has the answer, or long after."""
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=64)
        for _ in range(WAVES):
            teach(lane)
            plane.send(1.0)
            plane.turn(3 * FIXED_US * later)
            assert len(plane.batches) == 1
            plane.finish_all()


@given(st.lists(st.tuples(st.integers(0, 6_000), st.integers(0, 3_000), st.integers(1, 9)), min_size=1, max_size=20))
@settings(max_examples=20, deadline=None)
def test_whatever_a_caller_alone_does_it_is_never_held(habits: list[tuple[int, int, int]]):
    """Long thoughts and short ones, long runs, many rows and few: when it has asked, there is nobody to wait for."""
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model, max_batch_size=64, instances=2)
        for thought_us, run_us, rows in habits:
            teach(lane)
            plane.turn(thought_us)
            plane.send([float(row) for row in range(rows)])
            plane.turn()
            assert [batch.n_rows for batch in plane.batches] == [rows]
            plane.turn(run_us)
            plane.finish_all()


def test_once_seven_of_eight_are_gone_the_last_is_held_a_few_times_and_then_never():
    with learnt() as (plane, lane, _):
        held = []
        for _ in range(8):
            teach(lane)
            plane.send(1.0)
            plane.turn()
            held.append(not plane.batches)
            plane.turn(FIXED_US // 2)
            assert len(plane.batches) == 1  # not longer than that
            plane.turn(FIXED_US)  # it runs
            plane.finish_all()
            plane.turn(BACK_US)
        assert held[0]
        assert not any(held[4:])


def test_two_executors_share_out_those_who_come_back_and_the_first_waits_for_its_half():
    with learnt(instances=2) as (plane, _, _):
        for i in range(2):
            plane.send(float(i))
        plane.turn()
        assert plane.batches == []
        plane.send(2.0)
        plane.turn(10)
        assert plane.batches == []
        plane.send(3.0)
        plane.turn(10)
        assert [batch.n_rows for batch in plane.batches] == [4]
        for i in range(4):
            plane.send(float(i))
        plane.turn(10)
        assert [batch.n_rows for batch in plane.batches] == [4, 4]


def test_a_model_that_is_cheap_to_run_holds_nobody():
    with learnt() as (plane, lane, _):
        for _ in range(400):
            lane.learn(1, 20.0)
        plane.turn(3 * FIXED_US)
        plane.send(1.0)
        plane.turn()
        assert len(plane.batches) == 1


def test_a_full_batch_is_not_held():
    with learnt(max_batch_size=4) as (plane, _, _):
        for i in range(4):
            plane.send(float(i))
        plane.turn()
        assert [batch.n_rows for batch in plane.batches] == [4]


def test_a_deadline_that_leaves_no_time_to_wait_lets_it_go():
    with learnt() as (plane, _, _):
        call = plane.send(1.0, grpc_timeout=f"{FIXED_US + 1100}u")
        plane.turn()
        plane.turn(120)
        assert len(plane.batches) == 1
        plane.finish_all()
        assert call.code == OK
