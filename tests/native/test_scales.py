"""What two arms did is counted side by side, by arrival, and told only when all who arrived by then have an outcome."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.native.scales import DRAWN, read_counts, value_cell_of
from gateway.native.tile import latency_cell_of
from gateway.routing.armbook import ArmBook
from tests.support.lanes import DEADLINE_EXCEEDED, INTERNAL, INVALID_ARGUMENT, Model
from tests.support.weighed import MAX_AGE_US, SPAN_US, Weighed, latency, split, value_cells

ONLY_STABLE, ONLY_CANDIDATE = split(0), split(100)


class Bad(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("no")
        self.code = code


def failing(code: int = INTERNAL) -> Model:
    return Model({0.0}, lambda: Bad(code))


def sealed_later(harness: Weighed) -> None:
    harness.turn(SPAN_US)


def test_an_arm_without_a_candidate_beside_it_is_not_weighed() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route({"versions": {"1": 100}})
        harness.ask()
        harness.finish_all()
        assert harness.book.weighed() == []


def test_requests_are_counted_by_arm_with_their_latency() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(split(50))
        harness.ask(n=200)
        harness.now_us += 700
        harness.finish_all()
        sealed_later(harness)
        stable, candidate = harness.counts()
        assert stable[DRAWN] + candidate[DRAWN] == 200
        assert min(stable[DRAWN], candidate[DRAWN]) > 50
        for side in (stable, candidate):
            assert latency(side) == {latency_cell_of(700): side[DRAWN]}
        assert harness.weighed().open == (0, 0)


def test_a_rule_and_a_pinned_version_draw_nobody() -> None:
    rule = {"name": "beta", "match": {"header": "x-tenant", "exact": "acme"}, "versions": {"2": 100}}
    with Weighed() as harness:
        harness.serve()
        harness.route(split(50, rules=[rule]))
        harness.ask(metadata=[("x-tenant", "acme")])
        message = harness.request(0.0)
        message.model_version = "2"
        harness.ask(message=message)
        harness.finish_all()
        sealed_later(harness)
        assert harness.head() == [(0, 0, 0, 0), (0, 0, 0, 0)]


def test_who_fails_at_once_is_not_told_before_who_is_still_at_work() -> None:
    with Weighed() as harness:
        harness.serve(stable=Model(), candidate=failing())
        harness.route(split(50))
        harness.ask(n=40)
        slow = next(i for i, batch in enumerate(harness.batches) if harness.model_of(batch) == "v1")
        kept = harness.batches.pop(slow)
        harness.finish_all()
        harness.faults.clear()
        for _ in range(5):
            harness.turn(SPAN_US)
            assert harness.head() == [(0, 0, 0, 0), (0, 0, 0, 0)]
        assert harness.facts()["candidate"]["failed"] > 0  # what may not wait does not
        harness.batches.append(kept)
        del kept
        harness.finish_all()
        sealed_later(harness)
        (n_stable, _, failed_stable, _), (n, _, failed, _) = harness.head()
        assert (n_stable + n, failed_stable, failed) == (40, 0, n)


def test_an_outcome_that_never_comes_is_a_failure_in_the_end() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(ONLY_CANDIDATE)
        harness.ask()
        harness.turn(MAX_AGE_US - 1)
        assert harness.head()[1] == (0, 0, 0, 0)
        harness.turn(1)
        assert harness.head()[1] == (1, 1, 1, 0)
        assert harness.weighed().open == (0, 1)
        harness.finish_all()  # and is not counted again when it comes
        sealed_later(harness)
        assert harness.head()[1] == (1, 1, 1, 0)
        assert harness.weighed().open == (0, 0)


@pytest.mark.parametrize(("code", "failed"), [(INTERNAL, 1), (INVALID_ARGUMENT, 1), (DEADLINE_EXCEEDED, 1)])
def test_whatever_a_run_refuses_the_version_has_failed(code: int, failed: int) -> None:
    with Weighed() as harness:
        harness.serve(candidate=failing(code))
        harness.route(ONLY_CANDIDATE)
        (call,) = harness.ask()
        harness.finish_all()
        harness.faults.clear()
        sealed_later(harness)
        assert call.code == code
        assert harness.head()[1] == (1, 1, failed, 0)
        assert latency(harness.counts()[1]) == {736: 1}  # slower than all


def test_a_callers_fault_and_a_caller_who_gives_up_are_drawn_and_not_judged() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(ONLY_CANDIDATE)
        (wrong,) = harness.ask(message=harness.request(0.0, names=["z"]))
        (gone,) = harness.ask()
        harness.now_us += 3000
        harness.cancel(gone)
        harness.finish_all()
        sealed_later(harness)
        assert wrong.code == INVALID_ARGUMENT
        assert harness.head()[1] == (2, 0, 0, 0)
        assert latency(harness.counts()[1]) == {latency_cell_of(3000): 1}  # it waited so long at least


def test_a_deadline_in_the_queue_is_the_versions_fault() -> None:
    with Weighed() as harness:
        harness.serve(instances=1)
        harness.route(ONLY_CANDIDATE)
        harness.ask()
        (late,) = harness.ask(grpc_timeout="5m")
        harness.turn(6000)
        harness.finish_all()
        sealed_later(harness)
        assert late.code == DEADLINE_EXCEEDED
        assert harness.head()[1] == (2, 2, 1, 0)


def test_a_version_that_does_not_serve_has_failed_who_was_drawn_for_it() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.versions["2"] = "it is unloaded"
        harness.route(ONLY_CANDIDATE)
        harness.ask(n=3)
        sealed_later(harness)
        assert harness.head()[1] == (3, 3, 3, 0)
        assert harness.facts()["candidate"]["run"] == 3


def test_a_request_that_a_fallback_rescued_counts_against_the_version_that_was_drawn() -> None:
    with Weighed() as harness:
        harness.serve(candidate=failing())
        harness.route(split(100, fallback={"version": "1", "on": ["error"]}))
        (call,) = harness.ask()
        harness.finish_all()
        harness.faults.clear()
        sealed_later(harness)
        assert call.code == 0
        assert harness.head() == [(0, 0, 0, 0), (1, 1, 1, 0)]


# --- what an answer shows


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_an_answer_with_no_number_is_broken_unless_its_request_has_one(bad: float) -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: [np.where(inputs[0] == 1.0, bad, inputs[0])])
        harness.route(ONLY_CANDIDATE)
        harness.ask(1.0)
        harness.ask(bad)
        harness.ask(2.0)
        harness.finish_all()
        sealed_later(harness)
        assert harness.head()[1] == (3, 3, 1, 1)
        assert harness.facts()["candidate"]["broken"] == 1


def test_of_a_batch_only_the_request_whose_rows_are_broken_is() -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: [np.where(inputs[0] == 1.0, np.nan, inputs[0])], max_batch_size=16)
        harness.route(ONLY_CANDIDATE)
        for rows in ([5.0, 6.0], [7.0, 1.0, 8.0], [9.0]):
            harness.send(rows)
        harness.turn()
        assert len(harness.batches) == 1
        harness.finish_all()
        sealed_later(harness)
        assert harness.head()[1] == (3, 3, 1, 1)


def test_an_answer_of_a_wrong_shape_is_broken() -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: [np.zeros((9, 1), np.float32)])
        harness.route(ONLY_CANDIDATE)
        harness.ask()
        harness.finish_all()
        harness.faults.clear()
        sealed_later(harness)
        assert harness.head()[1] == (1, 1, 1, 1)


def test_equal_answers_to_different_requests_are_counted_in_a_row() -> None:
    with Weighed() as harness:
        harness.serve(stable=lambda inputs: [inputs[0]], candidate=lambda inputs: [inputs[0] * 0])
        harness.route(ONLY_CANDIDATE)
        for value in range(10):
            harness.ask(float(value))
            harness.ask(float(value))  # the same once more says nothing
        harness.route(ONLY_STABLE, 2)
        for value in (1.0, 1.0, 2.0, 3.0):
            harness.ask(value)
        harness.finish_all()
        assert harness.facts(1)["candidate"]["same"] == 10
        assert harness.facts(2)["stable"]["same"] == 0


def test_one_row_of_an_answer_is_put_into_the_cells_of_its_values() -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: [inputs[0]])
        harness.route(ONLY_CANDIDATE)
        harness.ask([0.5, 0.5, 0.5])
        harness.ask([-3.0])
        harness.finish_all()
        sealed_later(harness)
        assert value_cells(harness.counts()[1]) == {value_cell_of(0.5): 1, value_cell_of(-3.0): 1}
        assert harness.weighed().names == (None, ["y"])


def test_rows_are_chosen_without_regard_to_what_is_in_them() -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: [inputs[0]], max_batch_size=4)
        harness.route(ONLY_CANDIDATE)
        for _ in range(300):
            harness.now_us += 7
            harness.ask([1.0, 2.0, 4.0])
        harness.finish_all()
        sealed_later(harness)
        found = value_cells(harness.counts()[1])
        assert sum(found.values()) == 300
        assert all(60 < found[value_cell_of(value)] < 140 for value in (1.0, 2.0, 4.0))


def test_cells_of_values_are_in_order_and_whole_numbers_have_their_own() -> None:
    assert len({value_cell_of(float(n)) for n in range(32)}) == 32
    ascending = [value_cell_of(2.0**-16 * 1.05**k) for k in range(400)]
    assert ascending == sorted(ascending)
    assert [value_cell_of(x) for x in (math.nan, -math.inf, math.inf, 0.0, -0.0, 1e-9)] == [0, 1, 2, 3, 3, 3]
    assert value_cell_of(-1.5) == value_cell_of(1.5) + 512
    assert value_cell_of(1e30) == value_cell_of(65535.0) == 515


# --- sticky keys, runs, time


def test_of_a_sticky_key_only_the_first_request_counts() -> None:
    with Weighed() as harness:
        harness.serve()
        harness.route(split(50, sticky={"header": "x-user"}))
        for key in range(2000):
            harness.ask(metadata=[("x-user", f"user {key % 50}")], n=1)
            harness.finish_all()
        harness.ask(n=3)  # without a key each is drawn by itself
        harness.finish_all()
        sealed_later(harness)
        (stable, *_), (candidate, *_) = harness.head()
        assert stable + candidate == 50 + 3
        facts = harness.facts()
        assert facts["stable"]["n"] + facts["candidate"]["n"] == 2003


def test_the_longest_run_of_failures_is_told_for_a_while_after_it_ended() -> None:
    with Weighed() as harness:
        harness.serve(candidate=failing())
        harness.route(ONLY_CANDIDATE)
        harness.ask(n=7)
        harness.finish_all()
        harness.ask(1.0)
        harness.finish_all()
        harness.faults.clear()
        assert harness.facts()["candidate"]["run"] == 7
        harness.turn(2_000_001)
        assert harness.facts()["candidate"]["run"] == 0


def test_a_candidate_that_hangs_does_not_fill_the_memory() -> None:
    with Weighed() as harness:
        harness.serve(candidate=lambda inputs: inputs)
        harness.route(ONLY_CANDIDATE)
        most = 0
        for _ in range(1500):
            harness.ask()
            harness.turn(40_000)
            most = max(most, harness.weighed().n_unsealed)
        assert most < 48
        for call in harness.calls.values():
            harness.cancel(call)
        harness.turn(SPAN_US)
        assert harness.head()[1][0] == 1500
        assert harness.weighed().n_unsealed == 0


def test_an_equal_route_goes_on_counting_and_a_new_generation_begins_anew() -> None:
    book = ArmBook()
    first = book.scales("m", 1, ("1", "2"), (9000, 1000), False)
    assert book.scales("m", 1, ("1", "2"), (9000, 1000), False) is first
    assert book.scales("m", 2, ("1", "2"), (9000, 1000), False) is not first
    assert book.scales("m", 1, ("1", "2"), (8000, 2000), False) is not first


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_what_is_told_is_a_prefix_of_the_arrivals_each_with_its_outcome(data: st.DataObject) -> None:
    """Whatever the order in which requests end, on either side."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    with Weighed() as harness:
        harness.serve(stable=Model({1.0}), candidate=Model({1.0}))
        harness.route(split(50))
        arrived: list[list[bool]] = []  # [has ended, has failed]
        running: list[int] = []
        for _ in range(data.draw(st.integers(5, 120))):
            match rng.choice(["ask", "ask", "end", "end", "wait", "tell"]):
                case "ask":
                    has_failed = rng.random() < 0.3
                    harness.ask(float(has_failed))
                    running.append(len(arrived))
                    arrived.append([False, has_failed])
                case "end" if running:
                    place = rng.randrange(len(running))
                    arrived[running.pop(place)][0] = True
                    harness.finish(place)
                    harness.faults.clear()
                case "wait":
                    harness.turn(rng.choice([1000, 20_000, SPAN_US]))
                case "tell":
                    _check(harness, arrived)
        while running:
            arrived[running.pop(0)][0] = True
            harness.finish()
            harness.faults.clear()
        harness.turn(SPAN_US)
        head = _check(harness, arrived)
        assert head[0][0] + head[1][0] == len(arrived)


def _check(harness: Weighed, arrived: list[list[bool]]) -> list[tuple[int, ...]]:
    head = harness.head()
    n, failed = head[0][0] + head[1][0], head[0][2] + head[1][2]
    assert all(has_ended for has_ended, _ in arrived[:n])
    assert failed == sum(has_failed for _, has_failed in arrived[:n])
    return head


# --- what is told


def test_counts_that_are_cut_short_or_too_many_are_refused() -> None:
    with pytest.raises(ValueError, match="cut short at byte 1 of 1"):
        read_counts(b"\x80")
    with pytest.raises(ValueError, match="cut short"):
        read_counts(b"\x01")
    with pytest.raises(ValueError, match="expected 19412 at most"):
        read_counts(b"\xff\xff\x7f\x01")
    assert not read_counts(b"").any()
