"""Every request has exactly one outcome, whatever happens to its neighbours in the batch."""

import math

import numpy as np
import pytest

from gateway.errors import BackendFailure, InvalidArgument
from tests.support.lanes import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, OK, Harness, Model


def test_when_one_of_a_batch_is_cancelled_while_it_runs_the_rest_succeed():
    with Harness() as plane:
        lane = plane.lane()
        calls = [plane.send(float(i)) for i in range(4)]
        plane.turn()
        plane.cancel(calls[1])
        plane.finish()
        assert [call.rows for call in calls if not call.is_cancelled] == [[0.0], [4.0], [6.0]]
        assert not calls[1].is_answered
        assert lane.statistics()["requests"] == {OK: 3}
        assert lane.statistics()["cancelled"] == 1


def test_one_cancelled_while_it_waits_leaves_the_queue_and_is_never_run():
    model = Model()
    with Harness() as plane:
        lane = plane.lane(model)
        plane.send(0.0)
        plane.turn()
        calls = [plane.send(float(i)) for i in range(1, 4)]
        plane.turn()
        plane.cancel(calls[1])
        assert (lane.n_queued, lane.queued_rows) == (2, 2)
        plane.finish_all()
        assert model.runs == [[0.0], [1.0, 3.0]]
        assert [call.is_answered for call in calls] == [True, False, True]


@pytest.mark.parametrize("index", [0, 2, 4], ids=["head", "middle", "tail"])
def test_the_queue_stays_linked_when_any_of_its_members_leaves(index):
    model = Model()
    with Harness() as plane:
        plane.lane(model)
        plane.send(99.0)
        plane.turn()
        calls = [plane.send(float(i)) for i in range(5)]
        plane.turn()
        plane.cancel(calls[index])
        late = plane.send(5.0)
        plane.turn()
        plane.finish_all()
        assert model.runs[1] == [float(i) for i in range(6) if i != index]
        assert late.rows == [10.0]


def test_the_answers_of_a_batch_go_to_whom_they_belong():
    with Harness() as plane:
        plane.lane(max_batch_size=16)
        calls = [plane.send([10.0 * i + row for row in range(1 + i % 3)], request_id=f"id {i}") for i in range(7)]
        plane.turn()
        assert plane.finish_all() == 1
        for i, call in enumerate(calls):
            assert call.rows == [2 * (10.0 * i + row) for row in range(1 + i % 3)]
            assert call.response.id == f"id {i}"
            assert (call.response.model_name, call.response.model_version) == ("m", "1")


def test_a_batch_whose_callers_have_all_gone_settles_quietly():
    with Harness() as plane:
        lane = plane.lane()
        calls = [plane.send(float(i)) for i in range(3)]
        plane.turn()
        for call in calls:
            plane.cancel(call)
        plane.finish()
        assert lane.statistics()["cancelled"] == 3
        assert lane.is_idle


# --- a model that fails


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_a_failing_batch_is_halved_until_the_guilty_request_fails_alone(n):
    for guilty in range(n):
        model = Model(poison={float(guilty)})
        with Harness() as plane:
            lane = plane.lane(model)
            calls = [plane.send(float(i)) for i in range(n)]
            plane.turn()
            plane.finish()
            plane.expect_faults(RuntimeError)
            for i, call in enumerate(calls):
                if i == guilty:
                    assert (call.code, call.text) == (INTERNAL, "model 'm' version '1' failed on this request")
                else:
                    assert call.rows == [2.0 * i]
            assert len(model.runs) <= 1 + 2 * math.ceil(math.log2(n))
            assert [float(guilty)] in model.runs
            assert lane.statistics()["requests"] == ({OK: n - 1, INTERNAL: 1} if n > 1 else {INTERNAL: 1})


def test_when_all_are_guilty_each_fails_alone_after_twice_as_many_runs():
    model = Model(poison={0.0, 1.0, 2.0, 3.0})
    with Harness() as plane:
        plane.lane(model)
        calls = [plane.send(float(i)) for i in range(4)]
        plane.turn()
        plane.finish()
        plane.expect_faults(*[RuntimeError] * 4)
        assert [call.code for call in calls] == [INTERNAL] * 4
        assert len(model.runs) == 7


def test_a_refusal_by_the_model_reaches_its_caller_word_for_word_and_not_the_log():
    model = Model(poison={1.0}, error=lambda: InvalidArgument("x[0]: got 1, expected less"))
    with Harness() as plane:
        plane.lane(model)
        calls = [plane.send(float(i)) for i in range(3)]
        plane.turn()
        plane.finish()
        assert [call.code for call in calls] == [OK, INVALID_ARGUMENT, OK]
        assert calls[1].text == "x[0]: got 1, expected less"
        plane.expect_faults()


def test_a_failure_of_the_backend_reaches_both():
    model = Model(poison={1.0}, error=lambda: BackendFailure("the model failed"))
    with Harness() as plane:
        plane.lane(model)
        call = plane.send(1.0)
        plane.turn()
        plane.finish()
        assert (call.code, call.text) == (INTERNAL, "the model failed")
        plane.expect_faults(BackendFailure)


@pytest.mark.parametrize("code", [0, -1, 17, 404, "E42", 1 << 70, None])
def test_the_code_of_a_foreign_exception_is_no_grpc_code(code):
    class ForeignError(Exception):
        pass

    def error():
        made = ForeignError("secret")
        made.code = code
        return made

    with Harness() as plane:
        lane = plane.lane(Model(poison={1.0}, error=error))
        calls = [plane.send(float(i)) for i in range(3)]
        plane.turn()
        plane.finish()
        assert [call.code for call in calls] == [OK, INTERNAL, OK]
        assert "secret" not in calls[1].text
        assert lane.statistics()["requests"] == {OK: 2, INTERNAL: 1}
        plane.expect_faults(ForeignError)


def test_an_exception_that_ends_the_thread_still_answers_everybody():
    def run(_):
        raise SystemExit(1)

    with Harness() as plane:
        lane = plane.lane(run)
        calls = [plane.send(float(i)) for i in range(3)]
        plane.turn()
        plane.finish()
        assert [call.code for call in calls] == [INTERNAL] * 3
        assert lane.is_idle
        plane.expect_faults(SystemExit)


# --- answers that do not fit

WRONG = {
    "one row short": lambda x: [x[0][:-1]],
    "one row over": lambda x: [np.concatenate([x[0], x[0][:1]])],
    "too few outputs": lambda x: [],
    "too many outputs": lambda x: [x[0], x[0]],
    "wrong dtype": lambda x: [x[0].astype(np.float64)],
    "same size, wrong dtype": lambda x: [x[0].view(np.int32)],
    "other byte order": lambda x: [x[0].astype(">f4")],
    "not contiguous": lambda x: [np.stack([x[0], x[0]], 1)[:, 0]],
    "no batch dimension": lambda x: [np.float32(1).reshape(())],
    "a list": lambda x: [x[0].tolist()],
    "a tuple of outputs": lambda x: (x[0],),
    "nothing": lambda x: None,
    "rank over eight": lambda x: [x[0].reshape(-1, *[1] * 9)],
}


@pytest.mark.parametrize("run", WRONG.values(), ids=WRONG.keys())
def test_an_answer_that_does_not_fit_the_batch_fails_all_members_after_one_run(run):
    runs = []
    with Harness() as plane:
        lane = plane.lane(lambda inputs: runs.append(1) or run(inputs))
        calls = [plane.send(float(i)) for i in range(3)]
        plane.turn()
        plane.finish()
        assert [call.code for call in calls] == [INTERNAL] * 3
        assert {call.text for call in calls} == {"model 'm' version '1' gave an answer that does not fit its signature"}
        assert len(runs) == 1
        assert lane.statistics()["requests"] == {INTERNAL: 3}
        (fault,) = plane.faults
        assert "model 'm' version '1'" in str(fault)
        plane.faults.clear()


def test_a_lane_serves_on_after_every_kind_of_failure():
    answers = [*WRONG.values(), Model(poison={0.0})]

    def run(inputs):
        return (answers.pop(0) if answers else Model())(inputs)

    with Harness() as plane:
        plane.lane(run)
        for _ in range(len(answers)):
            plane.send(0.0)
            plane.turn()
            plane.finish()
        plane.faults.clear()
        call = plane.send(3.0)
        plane.turn()
        plane.finish_all()
        assert call.rows == [6.0]


# --- executors


def test_requests_that_no_executor_takes_are_answered_and_the_lane_goes_on():
    executor = {"is_broken": True}

    def submit(batch):
        if executor["is_broken"]:
            raise RuntimeError("can't start new thread")
        plane.batches.append(batch)

    with Harness() as plane:
        lane = plane.lane(submit=submit, max_batch_size=2)
        calls = [plane.send(float(i)) for i in range(5)]
        plane.turn()
        assert {(call.code, call.text) for call in calls} == {
            (INTERNAL, "model 'm' version '1' could not be scheduled")
        }
        plane.expect_faults(*[RuntimeError] * 3)
        assert lane.is_idle
        executor["is_broken"] = False
        call = plane.send(1.0)
        plane.turn()
        plane.finish()
        assert call.rows == [2.0]


def test_a_batch_that_was_never_executed_answers_its_members_all_the_same():
    with Harness() as plane:
        plane.lane()
        call = plane.send(1.0)
        plane.turn()
        plane.settle(plane.batches.pop())
        assert (call.code, call.text) == (INTERNAL, "model 'm' version '1' gave no answer")


def test_a_log_that_fails_costs_neither_answers_nor_other_lanes_their_turn():
    def submit(batch):
        raise RuntimeError("no thread")

    def report(error):
        raise OSError("disk full")

    with Harness() as plane:
        plane.lane(model="broken", submit=submit, report=report)
        plane.lane(model="sound")
        broken = plane.send(1.0, model="broken")
        sound = plane.send(1.0, model="sound")
        plane.turn()
        assert broken.code == INTERNAL
        plane.expect_faults(OSError)
        plane.finish()
        assert sound.rows == [2.0]


# --- one outcome each


def test_a_running_request_that_expires_is_answered_once_and_its_late_answer_dropped():
    with Harness() as plane:
        lane = plane.lane()
        late, other = plane.send(1.0, grpc_timeout="5m"), plane.send(2.0)
        plane.turn()
        plane.turn(5_000)
        assert (late.code, late.text) == (
            DEADLINE_EXCEEDED,
            "the deadline passed while model 'm' version '1' was running",
        )
        plane.finish()
        assert (late.body, late.n_ends) == (b"", 1)
        assert other.rows == [4.0]
        assert lane.statistics()["requests"] == {OK: 1, DEADLINE_EXCEEDED: 1}


def test_a_request_cancelled_after_it_expired_counts_once():
    with Harness() as plane:
        lane = plane.lane()
        call = plane.send(1.0, grpc_timeout="5m")
        plane.turn()
        plane.turn(6_000)
        plane.cancel(call)
        plane.finish()
        assert lane.statistics()["requests"] == {DEADLINE_EXCEEDED: 1}
        assert lane.statistics()["cancelled"] == 0


def test_the_timer_of_a_request_ends_with_it():
    with Harness() as plane:
        plane.lane()
        plane.send(1.0, grpc_timeout="1S")
        plane.turn()
        assert len(plane.plane.timers) == 1
        plane.finish()
        assert len(plane.plane.timers) == 0


def test_a_connection_that_is_lost_empties_queue_and_batches():
    with Harness() as plane:
        lane = plane.lane(max_batch_size=2)
        for i in range(6):
            plane.send(float(i), grpc_timeout="1S")
        plane.turn()
        plane.shut()
        assert (lane.n_queued, lane.queued_rows, lane.queued_bytes) == (0, 0, 0)
        assert lane.statistics()["cancelled"] == 6
        assert len(plane.plane.timers) == 0
