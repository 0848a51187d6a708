"""Where sequences go, and what is said when the server that held them is gone."""

from __future__ import annotations

from collections import Counter

import pytest

from gateway import pb
from gateway.backends.triton import steps
from gateway.backends.triton.endpoint import Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet
from gateway.backends.triton.sequences import IDLE_S, SequenceLost, Sequences


def ready(*addresses: str, weights: dict[str, float] | None = None) -> tuple[Fleet, Sequences]:
    fleet = Fleet(weights or addresses)
    for endpoint in fleet.endpoints:
        fleet.probed(endpoint, Sign.READY, "", 0.0, 0.0)
    return fleet, Sequences(fleet)


def where(
    sequences: Sequences, key: int | str, now_s: float = 0.0, *, start: bool = False, end: bool = False
) -> Endpoint:
    endpoint = sequences.endpoint_of(key, now_s, start=start, end=end)
    assert endpoint
    return endpoint


def test_all_steps_of_a_sequence_go_to_one_endpoint_whatever_the_others_carry() -> None:
    fleet, sequences = ready("a", "b", "c")
    for key in (1, "text", 2**63):
        first = where(sequences, key, start=True)
        fleet.started(first, 10_000, 0.0)
        assert all(where(sequences, key) is first for _ in range(5))


def test_two_workers_send_a_sequence_to_the_same_endpoint_without_asking_each_other() -> None:
    one, other = ready("a", "b", "c")[1], ready("c", "a", "b")[1]
    for key in range(200):
        assert where(one, key, start=True).address == where(other, key).address


def test_sequences_are_spread_by_weight() -> None:
    _, sequences = ready(weights={"a": 1.0, "b": 3.0})
    shares = Counter(where(sequences, key, start=True).address for key in range(4_000))
    assert 0.72 < shares["b"] / 4_000 < 0.78


def test_one_endpoint_more_moves_only_new_sequences() -> None:
    fleet, sequences = ready("a", "b")
    before = {key: where(sequences, key, start=True) for key in range(50)}
    fleet.set_members(["a", "b", "c"], 1.0)
    fleet.probed(fleet.endpoints[2], Sign.READY, "", 1.0, 1.0)
    assert all(where(sequences, key, 1.0) is endpoint for key, endpoint in before.items())


def test_the_caller_of_a_sequence_whose_endpoint_died_is_told_once_and_begins_again_elsewhere() -> None:
    fleet, sequences = ready("a:1", "b:2")
    held = where(sequences, 7, start=True)
    fleet.probed(held, Sign.UNREACHABLE, "it cannot be reached", 1.0, 1.0)
    sequences.drop(held)
    with pytest.raises(
        SequenceLost, match=rf"sequence 7: Triton at {held.address}.*it cannot be reached.*sequence_start"
    ):
        sequences.endpoint_of(7, 1.0, start=False, end=False)
    assert where(sequences, 7, 1.0, start=True) is not held


def test_an_endpoint_that_came_back_has_forgotten_and_its_sequences_are_told() -> None:
    fleet, sequences = ready("a")
    held = where(sequences, 7, start=True)
    fleet.probed(held, Sign.UNREACHABLE, "it cannot be reached", 1.0, 1.0)
    sequences.drop(held)
    fleet.probed(held, Sign.READY, "", 2.0, 2.0)
    with pytest.raises(SequenceLost):
        sequences.endpoint_of(7, 2.0, start=False, end=False)


def test_an_endpoint_that_came_back_gets_new_sequences_and_they_end_its_probation() -> None:
    """Where all there is are sequences: nothing else would ever end it."""
    fleet, sequences = ready("a", "b")
    back = fleet.endpoints[0]
    fleet.probed(back, Sign.UNREACHABLE, "it cannot be reached", 1.0, 1.0)
    assert {where(sequences, key, 1.0, start=True) for key in range(50)} == {fleet.endpoints[1]}
    fleet.probed(back, Sign.READY, "", 2.0, 2.0)
    theirs = [key for key in range(100, 150) if where(sequences, key, 2.0, start=True) is back]
    assert len(theirs) > 10
    for _ in range(fleet.rules.probation):
        fleet.started(back, 1, 2.0)
        fleet.ended(back, 1, Outcome.OK, 0.001, 2.0)
    assert back.state is State.READY


def test_an_endpoint_that_was_ejected_gets_new_sequences_when_its_time_is_over() -> None:
    fleet, sequences = ready("a", "b")
    ejected = fleet.endpoints[0]
    fleet.started(ejected, 1, 1.0)
    fleet.ended(ejected, 1, Outcome.LOST, 0.0, 1.0)
    assert {where(sequences, key, 1.0, start=True) for key in range(50)} == {fleet.endpoints[1]}
    later_s = 1.0 + fleet.rules.ejected_s
    assert ejected in {where(sequences, key, later_s, start=True) for key in range(50)}


def test_with_nobody_ready_there_is_nowhere_to_go() -> None:
    assert Sequences(Fleet(["a"])).endpoint_of(1, 0.0, start=True, end=False) is None


def test_ended_and_idle_sequences_are_forgotten_and_their_number_is_bounded() -> None:
    fleet, _ = ready("a")
    sequences = Sequences(fleet, most=10)
    for key in range(30):
        where(sequences, key, start=True)
    assert len(sequences) <= 11
    for key in range(30, 40):
        where(sequences, key, IDLE_S * 2, start=True, end=True)
    assert len(sequences) == 0


def test_what_a_request_says_of_its_sequence() -> None:
    request = pb.inference.ModelInferRequest()
    assert steps.of_request(request) is None
    request.parameters["sequence_id"].int64_param = 0
    assert steps.of_request(request) is None
    request.parameters["sequence_id"].string_param = "mine"
    request.parameters["sequence_start"].bool_param = True
    assert steps.of_message(request.SerializeToString()) == steps.Step("mine", True, False)
