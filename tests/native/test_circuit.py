"""The circuit of one version: opens on failures in a row, tries again after a pause, closes on success."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.native.circuit import STATE_NAMES, Circuit

PAUSE_US = 5_000_000
MAX_PAUSE_US = 60_000_000


def opened(**settings: Any) -> Circuit:
    """At time 0, after as many failures as it takes."""
    circuit = Circuit(**{"failures": 3, "open_for_us": PAUSE_US, **settings})
    for _ in range(circuit.failures):
        circuit.tell(circuit.try_admit(0), "failure", 0)
    assert circuit.state == "open"
    return circuit


def test_it_opens_on_failures_in_a_row_and_not_on_as_many_with_a_success_between() -> None:
    circuit = Circuit(3, PAUSE_US)
    for outcome in ("failure", "failure", "success", "failure", "failure"):
        circuit.tell(circuit.try_admit(0), outcome, 0)  # type: ignore[arg-type]
    assert circuit.state == "closed"
    circuit.tell(circuit.try_admit(0), "failure", 0)
    assert circuit.state == "open"
    assert circuit.try_admit(PAUSE_US - 1) == 0
    assert circuit.statistics() == {"state": "open", "failed_in_a_row": 3, "opened": 1, "refused": 1}


def test_what_is_nobodys_fault_neither_counts_nor_forgives() -> None:
    circuit = Circuit(2, PAUSE_US)
    for outcome in ("failure", "neither", "neither", "failure"):
        assert circuit.state == "closed"
        circuit.tell(circuit.try_admit(0), outcome, 0)  # type: ignore[arg-type]
    assert circuit.state == "open"


def test_after_the_pause_one_probe_goes_out_and_its_success_closes() -> None:
    circuit = opened()
    probe = circuit.try_admit(PAUSE_US)
    assert probe
    assert circuit.state == "half_open"
    assert circuit.try_admit(PAUSE_US) == 0
    circuit.tell(probe, "success", PAUSE_US)
    assert circuit.state == "closed"
    circuit.tell(circuit.try_admit(PAUSE_US), "failure", PAUSE_US)
    assert circuit.state == "closed"  # the count begins again


def test_as_many_probes_as_configured_go_out_at_once_and_all_must_succeed() -> None:
    circuit = opened(probes=2)
    first, second, third = (circuit.try_admit(PAUSE_US) for _ in range(3))
    assert first
    assert second
    assert third == 0
    circuit.tell(first, "success", PAUSE_US)
    assert circuit.state == "half_open"
    assert circuit.try_admit(PAUSE_US) == 0  # one has succeeded and one is out: no third is needed
    circuit.tell(second, "success", PAUSE_US)
    assert circuit.state == "closed"


def test_a_failed_probe_doubles_the_pause_up_to_a_minute_and_success_forgets_that() -> None:
    circuit = opened()
    now_us, pauses = 0, []
    for _ in range(6):
        pause_us = 0
        while not (probe := circuit.try_admit(now_us + pause_us)):
            pause_us += 1_000_000
        pauses.append(pause_us)
        now_us += pause_us
        circuit.tell(probe, "failure", now_us)
    assert pauses == [5_000_000, 10_000_000, 20_000_000, 40_000_000, 60_000_000, 60_000_000]
    now_us += MAX_PAUSE_US
    circuit.tell(circuit.try_admit(now_us), "success", now_us)
    for _ in range(3):
        circuit.tell(circuit.try_admit(now_us), "failure", now_us)
    assert circuit.try_admit(now_us + PAUSE_US)


def test_a_cancelled_probe_gives_its_place_to_the_next_request() -> None:
    circuit = opened()
    circuit.tell(circuit.try_admit(PAUSE_US), "neither", PAUSE_US)
    assert circuit.state == "half_open"
    assert circuit.try_admit(PAUSE_US)


def test_answers_from_before_it_opened_say_nothing() -> None:
    circuit = Circuit(2, PAUSE_US)
    early = [circuit.try_admit(0) for _ in range(4)]
    circuit.tell(early[0], "failure", 0)
    circuit.tell(early[1], "failure", 0)
    circuit.tell(early[2], "success", 0)
    assert circuit.state == "open"
    probe = circuit.try_admit(PAUSE_US)
    circuit.tell(early[3], "success", PAUSE_US)
    assert circuit.state == "half_open"
    circuit.tell(probe, "failure", PAUSE_US)
    assert circuit.state == "open"


def test_changes_are_told_with_their_numbers() -> None:
    told: list[tuple[Any, ...]] = []
    circuit = opened(changed=lambda *change: told.append(change))
    circuit.tell(circuit.try_admit(PAUSE_US), "failure", PAUSE_US)
    circuit.tell(circuit.try_admit(3 * PAUSE_US), "success", 3 * PAUSE_US)
    assert told == [
        ("closed", "open", 3, PAUSE_US),
        ("open", "half_open", 3, PAUSE_US),
        ("half_open", "open", 4, 2 * PAUSE_US),
        ("open", "half_open", 4, 2 * PAUSE_US),
        ("half_open", "closed", 4, PAUSE_US),
    ]


@pytest.mark.parametrize("name", ["failures", "open_for_us", "probes"])
def test_settings_below_one_are_refused_by_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: got 0, expected 1 or more"):
        Circuit(**{"failures": 1, "open_for_us": 1, "probes": 1, name: 0})


class SlowCircuit:
    """The same rules as a list of admissions, each with the number of moves before it."""

    def __init__(self, failures: int, pause_us: int, probes: int) -> None:
        self.failures, self.first_pause_us, self.probes = failures, pause_us, probes
        self.state, self.pause_us, self.until_us = "closed", pause_us, 0
        self.n_moves = self.in_a_row = 0
        self.out: list[int] = []  # probes that are out, or succeeded, in this half open period

    def move(self, state: str) -> None:
        self.state, self.out, self.n_moves = state, [], self.n_moves + 1

    def admit(self, now_us: int) -> int | None:
        if self.state == "open" and now_us >= self.until_us:
            self.move("half_open")
        if self.state == "open" or (self.state == "half_open" and len(self.out) >= self.probes):
            return None
        self.out.append(0)
        return self.n_moves

    def tell(self, moves: int, outcome: str, now_us: int) -> None:
        if moves != self.n_moves:
            return
        if outcome == "failure":
            self.in_a_row += 1
            if self.state == "half_open":
                self.pause_us = min(self.pause_us * 2, max(MAX_PAUSE_US, self.first_pause_us))
            if self.state == "half_open" or self.in_a_row >= self.failures:
                self.until_us = now_us + self.pause_us
                self.move("open")
        elif self.state == "half_open":
            self.out.remove(0)
            if outcome == "success":
                self.out.append(1)
                if sum(self.out) == self.probes:
                    self.pause_us, self.in_a_row = self.first_pause_us, 0
                    self.move("closed")
        elif outcome == "success":
            self.in_a_row = 0


STEPS = st.lists(
    st.tuples(
        st.integers(0, 4_000_000),
        st.sampled_from(["admit", "success", "failure", "failure", "neither"]),
        st.integers(0, 5),
    ),
    max_size=80,
)


@given(st.integers(1, 3), st.integers(1, 40_000_000), st.integers(1, 3), STEPS)
def test_it_does_what_the_slow_twin_does(
    failures: int, pause_us: int, probes: int, steps: list[tuple[int, str, int]]
) -> None:
    circuit, twin = Circuit(failures, pause_us, probes), SlowCircuit(failures, pause_us, probes)
    now_us, out = 0, []
    for pass_us, action, which in steps:
        now_us += pass_us
        if action == "admit":
            period, moves = circuit.try_admit(now_us), twin.admit(now_us)
            assert bool(period) == (moves is not None)
            if moves is not None:
                out.append((period, moves))
        elif out:
            period, moves = out.pop(which % len(out))
            circuit.tell(period, action, now_us)  # type: ignore[arg-type]
            twin.tell(moves, action, now_us)
        assert circuit.state == twin.state
        assert circuit.state in STATE_NAMES
