"""A shadow gets what the primary gets, and the primary's caller never notices; what came of both is counted."""

import gc

import numpy as np
import pytest

from gateway.errors import InvalidArgument
from gateway.native.counters import is_debug, live
from tests.support.lanes import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, OK, Harness, Model
from tests.support.shadows import ShadowHarness


def off_by(amount):
    return lambda inputs: [inputs[0] * 2 + np.float32(amount)]


def raising(inputs):
    raise RuntimeError("the shadow is broken")


def alone(*sends):
    """What the primary answers when it has no shadow."""
    with Harness() as plane:
        plane.lane()
        calls = [plane.send(values, request_id="r") for values in sends]
        plane.turn()
        plane.finish_all()
    return [(call.code, call.body) for call in calls]


# --- the pair


def test_the_shadow_gets_the_same_rows_in_a_batch_of_its_own():
    primary, shadow = Model(), Model()
    with ShadowHarness(primary, shadow) as plane:
        calls = [plane.send([1.0, 2.0]), plane.send(3.0)]
        plane.turn()
        plane.primary()
        assert [call.rows for call in calls] == [[2, 4], [6]]
        plane.turn()
        plane.shadow()
        assert (primary.runs, shadow.runs) == ([[1, 2, 3]], [[1, 2, 3]])
        assert plane.counts["both_answered"] == plane.counts["exact"] == plane.counts["agreed"] == 2
        assert plane.stats.n_drawn == plane.stats.n_admitted == 2
        assert plane.twin.statistics()["batches"] == 1
        assert plane.version_2.statistics()["batches"] == 0
        assert plane.shadow_arm.statistics()["requests"] == {OK: 2}
        assert plane.primary_arm.statistics()["requests"] == {OK: 2}


def test_both_read_the_same_bytes():
    """No second copy: the bytes in flight are those of one message and its answer."""
    with ShadowHarness(
        max_bytes=1 << 30, inputs=[("x", "FP32", (-1, 10_000))], outputs=[("y", "FP32", (-1, 10_000))]
    ) as plane:
        plane.send(np.ones((4, 10_000), np.float32))
        plane.turn()
        assert 160_000 < plane.plane.budget.used < 170_000
        assert plane.load.nbytes < 170_000
        plane.primary()
        assert plane.plane.budget.used == 0, "what the shadow holds on to is its own affair"
        assert 320_000 < plane.load.nbytes < 330_000, "the message, and the answer that waits for the other one"
        plane.shadow()
        assert plane.load.nbytes == 0


@pytest.mark.parametrize("first", ["primary", "shadow"])
def test_answers_are_compared_whoever_is_first(first):
    with ShadowHarness(Model(), off_by(0.5)) as plane:
        plane.send(1.0, request_id="apart")
        plane.turn()
        getattr(plane, first)()
        getattr(plane, "shadow" if first == "primary" else "primary")()
        counts = plane.counts
        assert (counts["both_answered"], counts["disagreed"], counts["agreed"]) == (1, 1, 0)
        y = counts["outputs"]["y"]
        assert (y["pairs"], y["exact"], y["within"]) == (1, 0, 0)
        assert y["worst_absolute"] == 0.5
        assert y["worst_relative"] == pytest.approx(0.2)
        (sample,) = plane.tally.worst
        assert (sample.id, sample.output, sample.index) == ("apart", "y", 0)
        assert (sample.absolute, sample.relative) == (0.5, pytest.approx(0.2))
        assert sample.severity == pytest.approx(0.5 / 1.5)
        assert sample.inputs == [("x", "FP32", (1, 1), np.float32(1).tobytes(), 4, None)]
        assert sample.primary == [("y", "FP32", (1, 1), np.float32(2).tobytes(), 4, None)]
        assert sample.shadow == [("y", "FP32", (1, 1), np.float32(2.5).tobytes(), 4, None)]
        assert plane.tally.recent == [sample]


def test_a_share_of_the_requests_is_shadowed():
    with ShadowHarness(share=2_500, max_concurrency=10_000, max_rows=10_000) as plane:
        for _ in range(800):
            plane.send(1.0)
        plane.turn()
        assert 120 < plane.stats.n_drawn < 290
        plane.finish_all()


def test_a_share_of_nothing_shadows_nothing():
    with ShadowHarness(share=0) as plane:
        plane.send(1.0)
        plane.turn()
        assert not plane.plane.mirror.stats


def test_a_pinned_request_has_no_shadow():
    with ShadowHarness() as plane:
        message = plane.request(1.0)
        message.model_version = "1"
        plane.send(message=message)
        plane.turn()
        assert not plane.plane.mirror.stats
        plane.finish_all()


def test_the_callers_own_wishes_do_not_bind_the_shadow():
    """Its deadline and priority are about its own answer."""
    with ShadowHarness(priority_levels=3) as plane:
        plane.send(1.0, timeout_us=50, priority=3)
        plane.turn()
        plane.primary()
        plane.turn(10_000)
        plane.shadow()
        assert plane.counts["both_answered"] == 1


# --- the primary's bytes, whatever the shadow does


@pytest.mark.parametrize(
    "wishes",
    [
        {"shadow_run": raising},
        {"shadow_run": off_by(1e9)},
        {"shadow_run": lambda inputs: [np.full((len(inputs[0]), 1), np.nan, np.float32)]},
        {"shadow_run": lambda inputs: []},
        {"shadow_run": lambda inputs: [inputs[0].astype(np.float64)]},
        {"shadow_inputs": [("other", "FP32", (-1, 1))]},
        {"shadow_inputs": [("x", "FP32", (-1, 7))]},
        {"shadow_inputs": [("x", "INT64", (-1, 1))]},
        {"shadow_outputs": [("z", "FP32", (-1, 1))]},
        {"shadow_outputs": [("y", "FP32", (-1, 2))], "shadow_run": lambda inputs: [np.repeat(inputs[0], 2, 1)]},
        {
            "shadow_outputs": [("y", "BYTES", (-1, 1))],
            "shadow_run": lambda inputs: [inputs[0].astype(str).astype(object)],
        },
        {"max_concurrency": 1},
        {"max_rows": 1},
        {"max_bytes": 1},
        {"shadow_policy": {"max_queue_rows": 1}},
    ],
)
def test_the_primarys_answers_are_byte_for_byte_what_they_are_without(wishes):
    sends = ([1.0], [2.0, 3.0], [4.0] * 11)
    expected = alone(*sends)
    with ShadowHarness(Model(), **{"shadow_run": Model(), **wishes}) as plane:
        calls = [plane.send(values, request_id="r") for values in sends]
        plane.turn()
        while any(batch.signature.version == "2" for batch in plane.batches):
            plane.shadow()
        while any(batch.signature.version == "1" for batch in plane.batches):
            plane.primary()
        assert [(call.code, call.body) for call in calls] == expected
        plane.finish_all()
        plane.turn()
        plane.faults.clear()


def test_a_shadow_that_never_ends_is_given_up_and_the_primary_answered():
    with ShadowHarness() as plane:
        call = plane.send(1.0)
        plane.turn()
        plane.primary()
        assert call.rows == [2]
        plane.turn(900_000)
        assert plane.stats.dropped == {}
        plane.turn(200_000)
        assert plane.stats.dropped == {"late_running": 1}
        assert plane.load.requests == 0
        plane.send(2.0)  # the hung batch holds the only executor
        plane.turn()
        plane.primary()
        plane.turn(1_100_000)
        assert plane.stats.dropped == {"late_running": 1, "late_queued": 1}


def test_a_slow_primary_gives_its_shadow_twice_its_own_time():
    with ShadowHarness() as plane:
        plane.send(1.0)
        plane.turn()
        plane.now_us += 3_000_000
        plane.primary()
        plane.turn(5_900_000)
        assert plane.stats.dropped == {}
        plane.turn(200_000)
        assert plane.stats.dropped == {"late_running": 1}


def test_an_answer_with_other_shapes_or_names_is_counted_and_shown():
    with ShadowHarness(
        shadow_outputs=[("y", "FP32", (-1, 2))], shadow_run=lambda inputs: [np.repeat(inputs[0], 2, 1)]
    ) as plane:
        plane.send(1.0)
        plane.turn()
        plane.finish_all()
        assert plane.counts["outputs"]["y"]["other_shape"] == 1
        assert plane.counts["disagreed"] == 1
        assert (plane.tally.worst, len(plane.tally.recent)) == ([], 1)
    with ShadowHarness(shadow_outputs=[("z", "FP32", (-1, 1))]) as plane:
        plane.send(1.0)
        plane.turn()
        plane.finish_all()
        assert plane.counts["outputs"]["y"]["missing"] == 1


def test_a_request_that_does_not_fit_the_shadow_is_counted_as_a_misfit():
    with ShadowHarness(shadow_inputs=[("x", "FP32", (-1, 7))]) as plane:
        call = plane.send(1.0)
        plane.turn()
        plane.finish_all()
        assert call.rows == [2]
        assert plane.stats.dropped == {"misfit": 1}
        assert plane.load.requests == 0


# --- failures on one side


def test_failures_of_either_side_are_counted_by_code():
    def shadow(inputs):
        if inputs[0].max() >= 10:
            raise RuntimeError("broken")
        return [inputs[0] * 2]

    def primary(inputs):
        if inputs[0].max() in (5, 15):
            raise InvalidArgument("no fives")
        return [inputs[0] * 2]

    with ShadowHarness(primary, shadow) as plane:
        calls = [plane.send(value) for value in (1.0, 5.0, 10.0, 15.0)]
        plane.turn()
        plane.finish_all()
        assert [call.code for call in calls] == [OK, INVALID_ARGUMENT, OK, INVALID_ARGUMENT]
        counts = plane.counts
        assert counts["both_answered"] == 1
        assert counts["primary_failed"] == {INVALID_ARGUMENT: 1}
        assert counts["shadow_failed"] == {INTERNAL: 1}
        assert counts["both_failed"] == 1
        texts = {(sample.primary_code, sample.shadow_code): sample.text for sample in plane.tally.recent}
        assert texts == {
            (INVALID_ARGUMENT, OK): "",
            (OK, INTERNAL): "model 'm' version '2' failed on this request",
        }
        plane.expect_faults(RuntimeError, RuntimeError)


@pytest.mark.parametrize("wish", [{"grpc_timeout": "10m"}, {"timeout_us": 10_000}])
def test_a_primary_that_misses_its_deadline_has_failed_and_the_shadow_goes_on(wish):
    with ShadowHarness() as plane:
        call = plane.send(1.0, **wish)
        plane.turn()
        plane.turn(20_000)
        assert call.code == DEADLINE_EXCEEDED
        plane.shadow()
        assert plane.counts["primary_failed"] == {DEADLINE_EXCEEDED: 1}
        plane.primary()


def test_a_shadow_that_keeps_failing_is_asked_less_and_less():
    with ShadowHarness(Model(), raising) as plane:
        for _ in range(300):
            plane.send(1.0)
            plane.turn()
            plane.finish_all()
        tried = plane.counts["shadow_failed"][INTERNAL]
        assert 16 < tried < 32
        assert plane.stats.dropped == {"failing": 300 - tried}
        assert len(plane.faults) == tried
        plane.faults.clear()


def test_a_shadow_that_recovers_is_asked_every_time_again():
    model = Model(poison={1.0})
    with ShadowHarness(Model(), model) as plane:
        for _ in range(40):
            plane.send(1.0)
            plane.turn()
            plane.finish_all()
        plane.faults.clear()
        model.poison.clear()
        before = plane.stats.n_admitted
        for _ in range(600):
            plane.send(1.0)
            plane.turn()
            plane.finish_all()
        assert plane.stats.n_admitted - before > 300
        plane.faults.clear()


# --- callers that leave


def leave_by_cancel(plane, call):
    plane.cancel(call)


def leave_by_disconnect(plane, call):
    plane.shut()


@pytest.mark.parametrize("leave", [leave_by_cancel, leave_by_disconnect])
@pytest.mark.parametrize("when", ["queued", "running", "shadow_done"])
def test_a_caller_who_leaves_takes_the_shadow_along(leave, when):
    with ShadowHarness(instances=1) as plane:
        if when == "queued":
            first = plane.send(0.0)
            plane.turn()
            assert not first.is_answered
        call = plane.send(1.0)
        plane.turn()
        if when == "shadow_done":
            plane.shadow()
        leave(plane, call)
        plane.turn()
        assert plane.stats.dropped["primary_gone"] >= 1
        if is_debug():
            gc.collect()
        plane.finish_all()
        assert plane.stats.n_open == 0


def test_a_stream_that_is_cancelled_with_its_shadow_running_leaves_nothing():
    with ShadowHarness() as plane:
        before = live().get("pair", 0)
        calls = [plane.send([1.0] * 3) for _ in range(5)]
        plane.turn()
        for call in calls[::2]:
            plane.cancel(call)
        plane.turn()
        plane.finish_all()
        if is_debug():
            gc.collect()
            assert live()["pair"] == before


def test_a_large_request_is_split_on_both_sides_and_compared_whole():
    with ShadowHarness(Model(), off_by(0), max_batch_size=4) as plane:
        call = plane.send([float(i) for i in range(11)])
        plane.turn()
        plane.finish_all()
        assert call.rows == [2.0 * i for i in range(11)]
        assert plane.counts["agreed"] == 1
        assert plane.counts["outputs"]["y"]["elements"] == 11
