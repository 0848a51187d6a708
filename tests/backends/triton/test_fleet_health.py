"""When an endpoint is taken out, why, and how it comes back."""

from __future__ import annotations

from random import Random

import pytest

from gateway.backends.triton.endpoint import Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet, Rules


class World:
    """A fleet whose endpoints answer as told."""

    def __init__(self, *names: str, rules: Rules | None = None) -> None:
        self.changes: list[tuple[str, State]] = []
        self.fleet = Fleet(
            names, rules, dice=Random(1), listener=lambda each, _, to: self.changes.append((each.address, to))
        )
        self.now_s = 0.0
        for endpoint in self.fleet.endpoints:
            self.fleet.probed(endpoint, Sign.READY, "", 0.0, 0.0)
        self.changes.clear()

    def __getitem__(self, address: str) -> Endpoint:
        return next(endpoint for endpoint in self.fleet.endpoints if endpoint.address == address)

    def answer(self, address: str, outcome: Outcome = Outcome.OK, took_s: float = 0.01, times: int = 1) -> None:
        for _ in range(times):
            self.fleet.started(self[address], 1, self.now_s)
            self.now_s += took_s
            self.fleet.ended(self[address], 1, outcome, took_s, self.now_s)

    def probe(self, address: str, sign: Sign, detail: str = "so it says") -> None:
        asked_s = self.now_s
        self.now_s += 0.01
        self.fleet.probed(self[address], sign, detail, asked_s, self.now_s)


def test_nobody_is_asked_before_it_said_that_it_is_ready() -> None:
    fleet = Fleet(["a"])
    assert fleet.pick(1, 0.0) is None
    assert fleet.why_none() == "a: not asked yet"


def test_failures_in_a_row_eject_and_one_right_answer_forgives() -> None:
    world = World("a", "b")
    world.answer("b", times=20)
    world.answer("a", Outcome.FAILED, times=4)
    world.answer("a")
    world.answer("a", Outcome.FAILED, times=4)
    assert world["a"].state is State.READY
    world.answer("a", Outcome.FAILED)
    assert world["a"].state is State.EJECTED
    assert world["a"].reason == "failed 5 times in a row; left alone for 1 s"


def test_a_broken_connection_ejects_at_once() -> None:
    world = World("a", "b")
    world.answer("a", Outcome.LOST)
    assert world["a"].state is State.EJECTED
    assert all(world.fleet.pick(1, world.now_s) is world["b"] for _ in range(50))


def test_a_model_that_fails_everywhere_ejects_nobody() -> None:
    world = World("a", "b", "c")
    for _ in range(30):
        for address in "abc":
            world.answer(address, Outcome.FAILED)
    assert not world.changes


def test_what_blames_the_caller_or_nobody_ejects_nobody() -> None:
    world = World("a", "b")
    world.answer("b", times=20)
    for outcome in (Outcome.REFUSED, Outcome.CANCELLED):
        world.answer("a", outcome, times=50)
    assert not world.changes


def test_the_last_one_is_never_ejected_but_a_probe_takes_it_out() -> None:
    world = World("a", "b")
    world.answer("a", Outcome.LOST)
    world.answer("b", Outcome.LOST, times=20)
    assert world["b"].state is State.READY
    world.probe("b", Sign.UNREACHABLE, "connection refused")
    assert world["b"].state is State.DOWN


def test_one_that_is_slower_than_its_peers_is_ejected() -> None:
    world = World("a", "b", "c")
    for _ in range(30):
        world.answer("a", took_s=0.01)
        world.answer("b", took_s=0.012)
        if world["c"].state is State.READY:
            world.answer("c", took_s=0.2)
    assert world.changes == [("c", State.EJECTED)]
    assert world["c"].reason.startswith("slow: ")


def test_small_differences_and_equal_slowness_eject_nobody() -> None:
    world = World("a", "b", "c")
    for _ in range(60):
        world.answer("a", took_s=0.001)
        world.answer("b", took_s=0.02)
        world.answer("c", took_s=0.001)
    world = World("a", "b")
    world.answer("a", took_s=1.0, times=40)
    world.answer("b", took_s=1.0, times=40)
    assert not world.changes


def test_an_ejection_ends_in_a_probation_of_one_attempt_at_a_time() -> None:
    world = World("a", "b")
    world.answer("a", Outcome.LOST)
    world.now_s += 1.0
    assert world.fleet.pick(1, world.now_s) is world["a"]
    assert world["a"].state is State.PROBATION
    world.fleet.started(world["a"], 1, world.now_s)
    assert all(world.fleet.pick(1, world.now_s) is world["b"] for _ in range(20))
    world.fleet.ended(world["a"], 1, Outcome.OK, 0.01, world.now_s)
    world.answer("a", times=2)
    assert world["a"].state is State.READY


def test_each_ejection_in_a_row_lasts_twice_as_long_up_to_a_bound() -> None:
    world = World("a", "b", rules=Rules(ejected_s=1.0, ejected_most_s=5.0))
    lasted = []
    world.answer("a", Outcome.LOST)
    for _ in range(5):
        lasted.append(world["a"].ejected_until_s - world.now_s)
        world.now_s = world["a"].ejected_until_s
        assert world.fleet.pick(1, world.now_s) is world["a"]
        world.answer("a", Outcome.LOST)
    assert lasted == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0])


def test_with_nobody_else_an_ejected_one_is_asked() -> None:
    world = World("a", "b")
    world.answer("a", Outcome.LOST)
    world.probe("b", Sign.NOT_READY)
    assert world.fleet.pick(1, world.now_s) is world["a"]


def test_one_silent_probe_is_patience_and_two_are_an_end() -> None:
    world = World("a", "b")
    world.probe("a", Sign.SILENT)
    assert world["a"].state is State.READY
    world.probe("a", Sign.SILENT, "does not answer")
    assert (world["a"].state, world["a"].reason) == (State.DOWN, "does not answer")


def test_a_busy_server_that_answers_is_not_dead_though_its_probes_are_late() -> None:
    world = World("a", "b")
    for _ in range(10):
        asked_s = world.now_s
        world.answer("a")
        world.fleet.probed(world["a"], Sign.SILENT, "late", asked_s, world.now_s)
    assert world["a"].state is State.READY


def test_one_that_was_down_comes_back_by_a_probe_and_probation() -> None:
    world = World("a", "b")
    world.probe("a", Sign.UNREACHABLE)
    world.probe("a", Sign.READY)
    assert world["a"].state is State.PROBATION
    world.answer("a", times=3)
    assert world["a"].state is State.READY
    assert [state for _, state in world.changes] == [State.DOWN, State.PROBATION, State.READY]


def test_a_failure_on_probation_ejects_even_when_alone() -> None:
    world = World("a")
    world.probe("a", Sign.UNREACHABLE)
    world.probe("a", Sign.READY)
    world.answer("a", Outcome.LOST)
    assert world["a"].state is State.EJECTED
    assert world.fleet.pick(1, world.now_s) is world["a"]


def test_who_leaves_the_list_ends_what_it_has_and_gets_nothing_new() -> None:
    world = World("a", "b")
    a = world["a"]
    world.fleet.started(a, 3, 0.0)
    world.fleet.set_members(["b"], 1.0)
    assert a.state is State.GONE
    assert world.fleet.pick(1, 1.0) is world["b"]
    world.fleet.ended(a, 3, Outcome.OK, 1.0, 1.0)
    assert a.outstanding_rows == 0
    world.fleet.probed(a, Sign.UNREACHABLE, "", 1.0, 1.0)
    assert a.state is State.GONE


def test_who_comes_back_into_the_list_is_somebody_new() -> None:
    world = World("a", "b")
    before = world["a"]
    world.fleet.set_members(["b"], 1.0)
    world.fleet.set_members(["a", "b"], 2.0)
    assert world["a"] is not before
    assert world["a"].state is State.STARTING


def test_who_is_well_is_probed_seldom_and_who_is_not_often() -> None:
    world = World("a", "b")
    world.probe("b", Sign.UNREACHABLE)
    asked = {"a": 0, "b": 0}
    for turn in range(1, 1001):
        for endpoint in world.fleet.probes_due(10.0 + turn / 100):
            asked[endpoint.address] += 1
    assert 10 <= asked["a"] <= 11
    assert 45 <= asked["b"] <= 51


def test_an_endpoint_that_has_been_quiet_with_work_is_asked_soon() -> None:
    world = World("a", "b")
    world.now_s = 100.0
    world.fleet.probes_due(99.9)
    world.fleet.started(world["a"], 1, 100.0)
    assert world.fleet.probes_due(100.3) == []
    assert world.fleet.probes_due(100.55) == [world["a"]]


def test_first_attempts_are_counted_apart() -> None:
    world = World("a", "b")
    fleet, a = world.fleet, world["a"]
    fleet.started(a, 1, 0.0)
    fleet.ended(a, 1, Outcome.FAILED, 0.1, 0.1)
    fleet.started(a, 1, 0.1, again=True)
    fleet.ended(a, 1, Outcome.OK, 0.1, 0.2, again=True)
    assert (a.counts.first, a.counts.first_failed, a.counts.again, a.counts.again_failed) == (1, 1, 1, 0)
