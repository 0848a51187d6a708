"""The table of stages and events."""

from __future__ import annotations

import pytest

from gateway.rollout.phase import TABLE, Event, IllegalMove, Stage, is_judged, is_over, is_serving, move

OVER = {Stage.ROLLED_BACK, Stage.REFUSED, Stage.SUPERSEDED}


def test_every_stage_has_its_row_and_only_ends_have_none() -> None:
    assert set(TABLE) == set(Stage)
    assert {stage for stage in Stage if is_over(stage)} == OVER


def test_every_stage_is_reached_from_loading_and_every_event_is_used() -> None:
    seen, todo = {Stage.LOADING}, [Stage.LOADING]
    while todo:
        new = set(TABLE[todo.pop()].values()) - seen
        seen |= new
        todo += new
    assert seen == set(Stage)
    assert {event for row in TABLE.values() for event in row} == set(Event)


def test_every_stage_where_a_caller_is_answered_has_a_way_back_and_is_judged() -> None:
    for stage in Stage:
        if is_serving(stage):
            assert TABLE[stage][Event.ROLL_BACK] is Stage.ROLLING_BACK
            assert is_judged(stage)


def test_a_stage_that_serves_is_not_reached_from_one_that_was_not_tried() -> None:
    assert not any(is_judged(stage) for stage in TABLE[Stage.LOADING].values())


def test_an_illegal_move_names_both_and_what_would_have_been_legal() -> None:
    with pytest.raises(IllegalMove, match=r"got promote in stage step, expected next_step, roll_back, start_baking"):
        move(Stage.STEP, Event.PROMOTE)
    with pytest.raises(IllegalMove, match="nothing, it is over"):
        move(Stage.ROLLED_BACK, Event.PROMOTE)
