"""How much a candidate can carry, from what its executors get through."""

from __future__ import annotations

import pytest

from gateway.rollout.capacity import most
from gateway.rollout.phase import Hold, Stage
from gateway.rollout.room import Room
from gateway.routing.route import SHARE_UNIT
from tests.support.rollouts import World, plan

ROOM = Room(executors=1, rows=10, run_us=50_000.0)
"""200 rows a second."""


@pytest.mark.parametrize(
    ("rooms", "requests_per_s", "units"),
    [
        ([ROOM], 100.0, SHARE_UNIT),
        ([ROOM], 400.0, 4000),
        ([ROOM, ROOM], 400.0, 8000),
        ([Room(4, 10, 50_000.0)], 1600.0, 4000),
        ([Room(1, 10, 500_000.0)], 400.0, 400),
        ([ROOM], 1e9, 0),
    ],
)
def test_the_largest_weight_keeps_executors_busy_for_the_share_that_they_may_be(
    rooms: list[Room], requests_per_s: float, units: int
) -> None:
    found = most(rooms, [], requests_per_s, 0.8)
    assert found is not None
    assert found.units == units


def test_a_request_counts_as_many_rows_as_requests_have() -> None:
    stable = [Room(1, 10, 1.0, n_requests=1000, n_rows=4000)]
    found = most([ROOM], stable, 100.0, 0.8)
    assert found is not None
    assert found.units == 4000
    assert found.seen == "10 rows take it 50 ms, executors: 1, so 200 rows a second; asked of the model: 400"


@pytest.mark.parametrize(("rooms", "requests_per_s"), [([], 100.0), ([ROOM], 0.0), ([ROOM, Room(1, 10, 0.0)], 100.0)])
def test_what_is_not_known_holds_nothing(rooms: list[Room], requests_per_s: float) -> None:
    assert most(rooms, [], requests_per_s, 0.8) is None


def test_it_comes_back_as_it_was_told_and_what_is_none_is_said() -> None:
    room = Room(2, 8, 12.5, 7, 9)
    assert Room.from_body(room.body()) == room
    with pytest.raises(ValueError, match="expected 5 numbers"):
        Room.from_body(b"[1,2]")


def test_a_rollout_stops_before_the_weight_that_the_candidate_cannot_carry_and_goes_on_when_it_can() -> None:
    world = World(plan())
    world.others |= {"capacity_units": 3000, "capacity_seen": "a row takes it 9 ms"}
    world.run(200)
    assert (world.stage, world.cursor.units) == (Stage.STEP, 2500)
    decision = world.look()
    assert decision.holds == (Hold.CAPACITY,)
    assert "the candidate can carry 30 %, the next weight is 50 %: a row takes it 9 ms" in decision.reasons
    world.others |= {"capacity_units": SHARE_UNIT}
    assert world.run(100).stage is Stage.PROMOTED


def test_a_candidate_that_cannot_carry_its_first_step_does_not_begin_it() -> None:
    world = World(plan())
    world.others["capacity_units"] = 100
    world.run(60)
    assert (world.stage, world.weights()) == (Stage.WARMING, [])
    assert Hold.CAPACITY in world.look().holds


def test_the_plan_says_how_busy_executors_may_be_or_that_nobody_asks() -> None:
    assert plan().capacity == 0.8
    assert plan(capacity="60 %").capacity == 0.6
    for given in (plan(capacity="off"), plan()):
        assert plan(**given.document()) == given
    assert plan(capacity="off").capacity is None
