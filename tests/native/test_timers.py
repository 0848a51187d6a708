"""The timer heap beside a sorted list: what is due fires, in order, once, unless it was cancelled."""

import gc
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native.timers import Callback, Timers, run_due

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 19), st.integers(1, 50)),
        st.tuples(st.just("cancel"), st.integers(0, 19)),
        st.tuples(st.just("run"), st.integers(0, 20)),
    ),
    max_size=120,
)


@settings(deadline=None)
@given(STEPS)
def test_the_heap_is_its_slow_twin(steps):
    timers, fired, due, now_us = Timers(), [], {}, 1
    callbacks = [Callback(lambda at_us, i=i: fired.append((i, at_us))) for i in range(20)]
    for step in steps:
        if step[0] == "start":
            callbacks[step[1]].start(timers, now_us + step[2])
            due[step[1]] = now_us + step[2]
        elif step[0] == "cancel":
            callbacks[step[1]].cancel(timers)
            due.pop(step[1], None)
        else:
            now_us += step[1]
            expected = sorted((at_us, i) for i, at_us in due.items() if at_us <= now_us)
            due = {i: at_us for i, at_us in due.items() if at_us > now_us}
            fired.clear()
            assert run_due(timers, now_us) == min(due.values(), default=None)
            assert sorted(fired) == sorted((i, now_us) for _, i in expected)
            moments = [{j: at_us for at_us, j in expected}[i] for i, _ in fired]
            assert moments == sorted(moments)
        assert len(timers) == len(due)


def test_many_timers_fire_in_order_of_their_time():
    timers, fired = Timers(), []
    moments = [(7919 * i) % 5_003 + 1 for i in range(5_000)]
    callbacks = [Callback(lambda _, moment=moment: fired.append(moment)) for moment in moments]
    for callback, moment in zip(callbacks, moments, strict=True):
        callback.start(timers, moment)
    for callback in callbacks[::3]:
        callback.cancel(timers)
    assert run_due(timers, 10_000) is None
    assert fired == sorted(moment for i, moment in enumerate(moments) if i % 3)


def test_starting_again_moves_it():
    timers, fired = Timers(), []
    callback = Callback(fired.append)
    callback.start(timers, 10)
    callback.start(timers, 20)
    assert len(timers) == 1
    assert run_due(timers, 10) == 20
    assert run_due(timers, 20) is None
    assert fired == [20]


def test_it_is_due_at_its_very_microsecond_and_not_before():
    timers, fired = Timers(), []
    Callback(fired.append).start(timers, 10)
    assert run_due(timers, 9) == 10
    assert fired == []
    assert run_due(timers, 10) is None
    assert fired == [10]


def test_a_timer_may_start_and_cancel_others_while_it_fires():
    timers, fired = Timers(), []
    third = Callback(lambda _: fired.append("third"))
    second = Callback(lambda _: fired.append("second"))

    def first(now_us):
        fired.append("first")
        second.cancel(timers)
        third.start(timers, now_us)

    Callback(first).start(timers, 1)
    second.start(timers, 2)
    assert run_due(timers, 5) is None
    assert fired == ["first", "third"]


def test_one_that_starts_itself_again_later_fires_again_later():
    timers, fired = Timers(), []

    def again(now_us):
        fired.append(now_us)
        callback.start(timers, now_us + 10)

    callback = Callback(again)
    callback.start(timers, 10)
    assert run_due(timers, 15) == 25
    assert run_due(timers, 25) == 35
    assert fired == [15, 25]


def test_one_that_raises_is_gone_and_the_rest_stays():
    timers, fired = Timers(), []

    def fails(_):
        raise LookupError("no")

    Callback(fails).start(timers, 1)
    Callback(fired.append).start(timers, 2)
    with pytest.raises(LookupError):
        run_due(timers, 5)
    assert len(timers) == 1
    assert run_due(timers, 5) is None
    assert fired == [5]


def test_cancelling_what_is_not_pending_does_nothing():
    timers = Timers()
    callback = Callback(print)
    callback.cancel(timers)
    callback.start(timers, 1)
    callback.cancel(timers)
    callback.cancel(timers)
    assert len(timers) == 0


def test_a_pending_timer_is_held_and_one_that_ended_is_not():
    timers = Timers()
    callbacks = [Callback(lambda _: None) for _ in range(300)]
    before = [sys.getrefcount(callback) for callback in callbacks]
    for i, callback in enumerate(callbacks):
        callback.start(timers, 1 + i % 7)
        callback.start(timers, 1 + i % 11)
    del callback
    assert [sys.getrefcount(callback) for callback in callbacks] == [n + 1 for n in before]
    for callback in callbacks[::2]:
        callback.cancel(timers)
    run_due(timers, 5)
    del timers, callback
    gc.collect()
    assert [sys.getrefcount(callback) for callback in callbacks] == before


def test_a_timer_that_outlives_its_heap_can_start_on_another():
    callback = Callback(print)
    callback.start(Timers(), 5)
    other, fired = Timers(), []
    again = Callback(fired.append)
    again.start(other, 1)
    callback.cancel(other)
    assert len(other) == 1
    assert run_due(other, 1) is None
    assert fired == [1]
