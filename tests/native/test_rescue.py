"""A request that its version failed on is answered by the fallback, once, in time, and both attempts are counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gateway.native.arm import Arm
from gateway.native.circuit import Circuit
from gateway.native.lane import Lane
from gateway.native.route import ON, Route, Target
from gateway.native.routetable import RouteTable
from tests.support.lanes import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    INVALID_ARGUMENT,
    OK,
    UNAVAILABLE,
    Harness,
    Model,
)

EVERYTHING = ("error", "circuit_open", "timeout")


class Two:
    """Model m: version 2 is drawn for everybody, version 1 is its fallback."""

    def __init__(
        self, h: Harness, *, on: tuple[str, ...] = EVERYTHING, run: Any = None, second: Any = None, **policy: Any
    ) -> None:
        self.first_model, self.second_model = run or Model(poison={7.0, 13.0}), second or Model()
        self.stable: Lane = h.lane(self.second_model, version="1", **policy)
        self.candidate: Lane = h.lane(self.first_model, version="2", **policy)
        self.arms = {name: Arm("m", version, name, 1) for name, version in (("candidate", "2"), ("fallback", "1"))}
        self.route = Route(
            "m",
            1,
            fallback=Target("1", self.stable, self.arms["fallback"]),
            fallback_on=sum(ON[name] for name in on),
        )
        drawn = Target("2", self.candidate, self.arms["candidate"], self.route)
        h.plane.routes = RouteTable({"m": {"": drawn, "1": self.stable, "2": self.candidate}})

    def counts(self) -> dict[str, dict[int, int]]:
        return {name: arm.statistics()["requests"] for name, arm in self.arms.items()}


def test_the_fallback_answers_what_failed_and_the_answer_says_so() -> None:
    with Harness() as h:
        two = Two(h)
        good, bad = h.send(1, request_id="good"), h.send(7, request_id="bad")
        h.turn()
        h.finish_all()
        assert good.rows == [2]
        assert bad.rows == [14]
        assert (good.response.model_version, bad.response.model_version) == ("2", "1")
        assert bad.response.id == "bad"
        assert {k: v.string_param for k, v in bad.response.parameters.items()} == {"gateway_fallback_from": "2"}
        assert not good.response.parameters
        assert two.counts() == {"candidate": {OK: 1, INTERNAL: 1}, "fallback": {OK: 1}}
        assert two.candidate.statistics()["rescued"] == {"error": 1}
        assert two.route.rescue is not None
        assert two.route.rescue.n_open == 0
        h.expect_faults(RuntimeError)


def test_a_fallback_that_fails_too_is_the_end_of_it_and_its_error_is_told() -> None:
    with Harness() as h:
        two = Two(h, second=Model(poison={7.0}))
        call = h.send(7)
        h.turn()
        assert h.finish_all() == 2
        assert (call.code, call.text) == (INTERNAL, "model 'm' version '1' failed on this request")
        assert two.counts() == {"candidate": {INTERNAL: 1}, "fallback": {INTERNAL: 1}}
        h.expect_faults(RuntimeError, RuntimeError)


def test_what_the_caller_did_wrong_is_not_tried_again() -> None:
    class Refused(Exception):
        code = INVALID_ARGUMENT

    with Harness() as h:
        two = Two(h, run=Model(poison={7.0}, error=lambda: Refused("that is no number")))
        call = h.send(7)
        h.turn()
        h.finish_all()
        assert (call.code, call.text) == (INVALID_ARGUMENT, "that is no number")
        assert two.second_model.runs == []


@pytest.mark.parametrize("on", [("circuit_open",), ("timeout",), ()])
def test_an_error_goes_to_the_caller_when_the_route_does_not_name_it(on: tuple[str, ...]) -> None:
    with Harness() as h:
        Two(h, on=on)
        call = h.send(7)
        h.turn()
        h.finish_all()
        assert call.code == INTERNAL
        h.expect_faults(RuntimeError)


def test_a_request_that_names_its_version_gets_that_version_or_its_error() -> None:
    with Harness() as h:
        two = Two(h)
        message = h.request(7)
        message.model_version = "2"
        call = h.send(message=message)
        h.turn()
        h.finish_all()
        assert call.code == INTERNAL
        assert two.second_model.runs == []
        h.expect_faults(RuntimeError)


def test_a_fallback_whose_signature_does_not_fit_leaves_the_first_error() -> None:
    with Harness() as h:
        candidate = h.lane(Model(poison={7.0}), version="2")
        stable = h.lane(version="1", inputs=[("other", "FP32", (-1, 1))])
        route = Route("m", 1, fallback=Target("1", stable), fallback_on=ON["error"])
        h.plane.routes = RouteTable({"m": {"": Target("2", candidate, None, route)}})
        call = h.send(7)
        h.turn()
        h.finish_all()
        assert (call.code, call.text) == (INTERNAL, "model 'm' version '2' failed on this request")
        h.expect_faults(RuntimeError)


def test_only_the_failed_member_of_a_batch_moves() -> None:
    with Harness() as h:
        two = Two(h)
        calls = [h.send(value) for value in (1, 2, 7, 4)]
        h.turn()
        h.finish_all()
        assert [call.rows for call in calls] == [[2], [4], [14], [8]]
        assert two.second_model.runs == [[7.0]]
        h.expect_faults(RuntimeError)


def test_a_request_larger_than_a_batch_is_rescued_whole() -> None:
    with Harness() as h:
        Two(h, max_batch_size=2)
        call = h.send([1.0, 2.0, 3.0, 7.0, 5.0])
        h.turn()
        h.finish_all()
        assert call.rows == [2, 4, 6, 14, 10]
        assert call.response.model_version == "1"
        h.expect_faults(RuntimeError)


# --- the caller's own end reaches the second attempt


def test_a_cancel_reaches_the_second_attempt_in_the_queue() -> None:
    with Harness() as h:
        two = Two(h)
        call = h.send(7)
        h.turn()
        h.finish()  # fails; the second attempt is submitted
        assert len(h.batches) == 1
        other = h.send(13)
        h.turn()
        h.finish(1)  # this one waits behind the first in the fallback's queue
        h.cancel(other)
        h.cancel(call)
        h.turn()
        h.finish_all()
        assert two.stable.statistics()["cancelled"] == 2
        assert two.second_model.runs == [[7.0]]  # the one in the queue never ran
        assert two.route.rescue is not None
        assert two.route.rescue.n_open == 0
        h.expect_faults(RuntimeError, RuntimeError)


def test_the_second_attempt_has_what_is_left_of_the_deadline_and_no_more() -> None:
    with Harness() as h:
        two = Two(h, on=("error",))
        call = h.send(7, grpc_timeout="100m")
        h.turn()
        h.turn(60_000)
        h.finish()
        assert call.code is None
        h.turn(39_000)
        assert call.code is None
        h.turn(1_000)
        assert call.code == DEADLINE_EXCEEDED
        assert two.counts() == {"candidate": {INTERNAL: 1}, "fallback": {DEADLINE_EXCEEDED: 1}}
        h.expect_faults(RuntimeError)


def test_a_lost_connection_leaves_nothing_of_either_attempt() -> None:
    with Harness() as h:
        Two(h)
        h.send(7)
        h.turn()
        h.finish()
        h.shut()
        h.finish_all()
        h.expect_faults(RuntimeError)


# --- timeouts


def test_a_first_attempt_gets_half_of_the_deadline_and_the_fallback_the_rest() -> None:
    with Harness() as h:
        two = Two(h)
        call = h.send(1, grpc_timeout="100m")
        h.turn()
        h.turn(49_000)
        assert len(h.batches) == 1
        h.turn(1_000)  # version 2 still runs; version 1 gets it
        assert len(h.batches) == 2
        h.finish(1)
        assert call.rows == [2]
        assert call.response.model_version == "1"
        assert call.response.parameters["gateway_fallback_from"].string_param == "2"
        assert two.counts() == {"candidate": {DEADLINE_EXCEEDED: 1}, "fallback": {OK: 1}}
        assert two.candidate.statistics()["rescued"] == {"timeout": 1}
        h.finish()  # the first attempt comes too late, and nobody hears of it
        assert call.n_ends == 1


def test_a_first_attempt_goes_on_with_all_of_the_deadline_when_nobody_can_take_it_up() -> None:
    with Harness() as h:
        two = Two(h)
        two.stable.close()
        call = h.send(1, grpc_timeout="100m")
        h.turn()
        h.turn(70_000)
        assert call.code is None
        h.finish()
        assert call.rows == [2]
        assert call.response.model_version == "2"


def test_the_timeout_parameter_is_shared_between_the_attempts_like_a_deadline() -> None:
    with Harness() as h:
        Two(h)
        call = h.send(1, timeout_us=100_000)
        h.turn()
        h.turn(50_000)
        h.turn(49_000)
        assert call.code is None
        h.turn(1_000)
        assert call.code == DEADLINE_EXCEEDED


def test_without_a_deadline_nothing_is_cut_short() -> None:
    with Harness() as h:
        two = Two(h)
        call = h.send(1)
        h.turn()
        h.turn(3_600_000_000)
        h.finish_all()
        assert call.rows == [2]
        assert two.second_model.runs == []


# --- the bound


def test_second_attempts_are_at_most_a_fifth_of_what_is_in_flight_but_three_always() -> None:
    with Harness() as h:
        two = Two(h, run=Model(poison=set(map(float, range(40)))), max_batch_size=64)
        calls = [h.send(value) for value in range(40)]
        h.turn()
        h.finish()
        codes = [call.code for call in calls]
        n_moved = codes.count(None)
        assert n_moved == 7  # 40 in flight as the first fails, 33 as the seventh does: a fifth of those
        assert two.candidate.statistics()["rescues_refused"] == 33
        h.finish_all()
        assert [call.code for call in calls].count(OK) == n_moved
        few = [h.send(value) for value in range(4)]
        h.turn()
        h.finish_all()
        assert [call.code for call in few].count(OK) == 3
        h.faults.clear()


# --- the circuit


def fail(h: Harness, n: int) -> None:
    for _ in range(n):
        h.send(7)
        h.turn()
        h.finish_all()


def test_an_open_circuit_sends_everybody_to_the_fallback_without_a_bound() -> None:
    with Harness() as h:
        two = Two(h)
        two.candidate.circuit = Circuit(3, 5_000_000)
        fail(h, 3)
        assert two.candidate.circuit.state == "open"
        calls = [h.send(7) for _ in range(20)]
        h.turn()
        h.finish_all()
        assert [call.rows for call in calls] == [[14]] * 20
        assert two.first_model.runs == [[7.0]] * 3
        assert two.candidate.statistics()["rescued"] == {"error": 3, "circuit_open": 20}
        assert two.counts() == {"candidate": {INTERNAL: 3, UNAVAILABLE: 20}, "fallback": {OK: 23}}
        h.turn(5_000_000)
        probe = h.send(1)
        h.turn()
        h.finish_all()
        assert probe.response.model_version == "2"
        assert two.candidate.circuit.state == "closed"
        h.faults.clear()


def test_an_open_circuit_without_a_fallback_refuses_at_once_and_says_until_when() -> None:
    with Harness() as h:
        lane = h.lane(Model(poison={7.0}))
        lane.circuit = Circuit(2, 5_000_000)
        fail(h, 2)
        call = h.send(1)
        h.turn(1_500_000)
        assert (call.code, call.text) == (
            UNAVAILABLE,
            "model 'm' version '1' failed 2 times in a row and gets no requests (circuit open); "
            "it is tried again in 3.5 s",
        )
        assert lane.statistics()["refused_circuit"] == 1
        h.faults.clear()


def test_runs_that_miss_their_deadlines_open_the_circuit_and_waiting_in_the_queue_does_not() -> None:
    with Harness() as h:
        lane = h.lane(max_batch_size=1)
        lane.circuit = Circuit(2, 5_000_000)
        running = [h.send(1, grpc_timeout="10m")]
        h.turn()
        queued = [h.send(1, grpc_timeout="10m") for _ in range(5)]
        h.turn()
        h.turn(10_000)
        assert [call.code for call in running + queued] == [DEADLINE_EXCEEDED] * 6
        assert lane.circuit.statistics()["failed_in_a_row"] == 1
        h.finish_all()
        h.send(1, grpc_timeout="10m")
        h.turn()
        h.turn(10_000)
        assert lane.circuit.state == "open"


def test_cancelled_and_refused_input_do_not_open_it_and_a_cancelled_probe_frees_its_place() -> None:
    class Refused(Exception):
        code = INVALID_ARGUMENT

    with Harness() as h:
        model = Model(poison={7.0}, error=lambda: Refused("no"))
        lane = h.lane(model)
        lane.circuit = Circuit(1, 1_000_000)
        fail(h, 5)
        for _ in range(5):
            call = h.send(1)
            h.turn()
            h.cancel(call)
            h.turn()
            h.finish_all()
        assert lane.circuit.state == "closed"
        model.error = lambda: RuntimeError("broken")
        fail(h, 1)
        assert lane.circuit.state == "open"
        h.now_us += 1_000_000
        probe = h.send(1)
        h.turn()
        h.cancel(probe)
        h.turn()
        h.finish_all()
        assert lane.circuit.state == "half_open"
        again = h.send(1)
        h.turn()
        h.finish_all()
        assert again.rows == [2]
        assert lane.circuit.state == "closed"
        h.faults.clear()


def test_a_listener_that_fails_costs_nobody_an_answer() -> None:
    def listener(*_: object) -> None:
        raise ValueError("the log is full")

    with Harness() as h:
        lane = h.lane(Model(poison={7.0}))
        lane.circuit = Circuit(1, 1_000_000, 1, listener)
        call = h.send(7)
        h.turn()
        h.finish_all()
        assert call.code == INTERNAL
        h.expect_faults(ValueError, RuntimeError)


def test_a_version_that_does_not_serve_is_answered_for_and_the_answer_says_so() -> None:
    with Harness() as h:
        stable = h.lane()
        arm = Arm("m", "2", "candidate", 1)
        route = Route("m", 1, fallback=Target("1", stable), fallback_on=ON["error"])
        h.plane.routes = RouteTable({"m": {"": Target("2", "LOADING", arm, route)}})
        call = h.send(1)
        h.turn()
        h.finish_all()
        assert call.response.parameters["gateway_fallback_from"].string_param == "2"
        assert arm.statistics()["requests"] == {UNAVAILABLE: 1}


def test_answers_of_batches_that_hold_both_kinds_carry_each_its_own_parameters() -> None:
    """A rescued request and one drawn for the fallback's version run together."""
    with Harness() as h:
        two = Two(h)
        rescued = h.send(7)
        h.turn()
        blocker = h.send(message=pinned(h, 5))
        h.turn()
        h.finish(0)
        direct = h.send(message=pinned(h, 3))
        h.turn()
        h.finish_all()
        assert [call.rows for call in (rescued, blocker, direct)] == [[14], [10], [6]]
        assert two.second_model.runs[-1] == [7.0, 3.0]
        assert rescued.response.parameters
        assert not direct.response.parameters
        h.expect_faults(RuntimeError)


def pinned(h: Harness, value: float) -> Any:
    message = h.request(np.array([[value]], np.float32))
    message.model_version = "1"
    return message
