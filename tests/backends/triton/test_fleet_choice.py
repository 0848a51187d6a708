"""Who is asked next: fewer rows for its weight, gently after an absence, and never one that was found dead."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.triton.budget import FLOOR, SHARE, WINDOW_S, RetryBudget
from gateway.backends.triton.endpoint import FAILURES, MOVES, Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet, Rules
from gateway.backends.triton.latency import Quantile


def ready_fleet(addresses: dict[str, float] | list[str], rules: Rules | None = None, seed: int = 1) -> Fleet:
    fleet = Fleet(addresses, rules, dice=Random(seed))
    for endpoint in fleet.endpoints:
        fleet.probed(endpoint, Sign.READY, "", 0.0, 0.0)
        endpoint.ramp_from_s = float("-inf")
    return fleet


def served(
    fleet: Fleet,
    seconds_of_row: dict[str, float],
    concurrency: int,
    requests: int,
    start_s: float = 0.0,
    parallel: bool = False,
) -> Counter[str]:
    """A closed loop against servers that work at one row after the other, or at all at once; how many each got."""
    now_s = start_s
    free_s = dict.fromkeys(seconds_of_row, start_s)
    running: list[tuple[float, Endpoint, float]] = []
    shares: Counter[str] = Counter()
    for _ in range(requests):
        while len(running) >= concurrency:
            running.sort(key=lambda each: each[0])
            now_s, endpoint, began_s = running.pop(0)
            fleet.ended(endpoint, 1, Outcome.OK, now_s - began_s, now_s)
        picked = fleet.pick(1, now_s)
        assert picked
        fleet.started(picked, 1, now_s)
        shares[picked.address] += 1
        end_s = (now_s if parallel else max(free_s[picked.address], now_s)) + seconds_of_row[picked.address]
        free_s[picked.address] = end_s
        running.append((end_s, picked, now_s))
    for _, endpoint, began_s in running:
        fleet.ended(endpoint, 1, Outcome.CANCELLED, now_s - began_s, now_s)
    return shares


def test_alike_endpoints_get_alike_shares_at_any_load() -> None:
    for concurrency in (1, 2, 8, 64):
        shares = served(ready_fleet(["a", "b", "c"]), {"a": 0.01, "b": 0.01, "c": 0.01}, concurrency, 6_000)
        assert all(1_800 < shares[address] < 2_200 for address in "abc"), (concurrency, shares)


def test_a_weight_is_a_share_when_idle_and_under_load() -> None:
    for concurrency in (1, 40):
        shares = served(ready_fleet({"a": 3.0, "b": 1.0}), {"a": 0.01, "b": 0.03}, concurrency, 4_000)
        assert shares["a"] / shares["b"] == pytest.approx(3.0, rel=0.15), (concurrency, shares)


def test_a_slower_server_gets_what_it_can_do_and_the_others_the_rest() -> None:
    rules = Rules(slow_factor=0.0)
    shares = served(ready_fleet(["a", "b"], rules), {"a": 0.01, "b": 0.04}, 16, 5_000)
    assert 3.0 < shares["a"] / shares["b"] < 5.0


def test_rows_are_counted_and_not_attempts() -> None:
    fleet = ready_fleet(["a", "b"])
    a, b = fleet.endpoints
    fleet.started(a, 64, 0.0)
    for _ in range(8):
        fleet.started(b, 1, 0.0)
    assert fleet.pick(1, 0.0) is b


def test_one_that_joins_later_begins_with_little() -> None:
    fleet = ready_fleet(["a"])
    fleet.set_members(["a", "b"], 100.0)
    b = fleet.endpoints[1]
    assert fleet.pick(1, 100.0, [fleet.endpoints[0]]) is None  # nobody knows yet whether it is ready
    fleet.probed(b, Sign.READY, "", 100.0, 100.0)
    at_first = served(fleet, {"a": 0.0001, "b": 0.0001}, 40, 2_000, 100.0, parallel=True)
    later = served(fleet, {"a": 0.0001, "b": 0.0001}, 40, 2_000, 200.0, parallel=True)
    assert at_first["b"] < 250
    assert 900 < later["b"] < 1_100


def test_who_has_tried_is_not_asked_again() -> None:
    fleet = ready_fleet(["a", "b"])
    a, b = fleet.endpoints
    assert fleet.pick(1, 0.0, [a]) is b
    assert fleet.pick(1, 0.0, [a, b]) is None


def test_an_empty_or_dead_fleet_says_why() -> None:
    assert Fleet([]).why_none() == "the list of endpoints is empty"
    fleet = ready_fleet(["a:1", "b:2"])
    a, b = fleet.endpoints
    fleet.probed(a, Sign.UNREACHABLE, "connection refused", 1.0, 1.0)
    fleet.probed(b, Sign.NOT_READY, 'model "m" is not ready', 1.0, 1.0)
    assert fleet.pick(1, 1.0) is None
    assert fleet.why_none() == 'a:1: connection refused; b:2: model "m" is not ready'


@given(st.lists(st.tuples(st.sampled_from(["first", "retry", "wait"]), st.floats(0, 4)), max_size=300))
def test_retries_stay_within_a_fifth_of_the_last_seconds_or_three(events: list[tuple[str, float]]) -> None:
    budget, now_s = RetryBudget(), 0.0
    firsts: list[float] = []
    retries: list[float] = []
    for what, wait_s in events:
        if what == "wait":
            now_s += wait_s
        elif what == "first":
            budget.first(now_s)
            firsts.append(now_s)
        elif budget.take(now_s):
            retries.append(now_s)
            # Whoever looks over the same stretch, give or take the slots, finds no more than the share.
            recent = [when for when in retries if when > now_s - WINDOW_S * 0.95]
            asked = [when for when in firsts if when > now_s - WINDOW_S * 1.05]
            assert len(recent) <= max(FLOOR, SHARE * len(asked))
        elif not budget.take(now_s):
            recent = [when for when in retries if when > now_s - WINDOW_S * 1.05]
            assert len(recent) >= FLOOR, "refused with room in the floor"


def test_what_was_on_its_way_to_a_dead_server_is_carried_over_once_for_each_death() -> None:
    fleet = ready_fleet(["a", "b"])
    a, _ = fleet.endpoints
    for _ in range(50):
        fleet.started(a, 1, 0.0)
    for _ in range(50):
        fleet.ended(a, 1, Outcome.LOST, 0.01, 0.01)
    assert sum(fleet.may_retry(0.01) for _ in range(200)) >= 50
    for _ in range(200):  # connections that break one after the other earn nothing more
        fleet.started(a, 1, 1.0, again=True)
        fleet.ended(a, 1, Outcome.LOST, 0.01, 1.0, again=True)
    assert sum(fleet.may_retry(1.0) for _ in range(200)) == 0


@given(st.lists(st.floats(0.001, 10.0), min_size=48, max_size=400))
def test_the_hedge_waits_for_the_95th_percentile_of_late(durations: list[float]) -> None:
    quantile = Quantile()
    for number, duration in enumerate(durations, 1):
        quantile.add(duration)
        if number % 16 == 0 and number >= 48:
            recent = sorted(durations[max(0, number - 256) : number])
            assert quantile.value_s in recent
            below = sum(each <= quantile.value_s for each in recent) / len(recent)
            assert below >= 0.95


def test_nobody_is_hedged_before_enough_is_known() -> None:
    fleet = ready_fleet(["a", "b"])
    assert fleet.hedge_after_s() is None


class Script:
    """A fleet under any order of events, beside the plainest account of what is on its way."""

    def __init__(self, names: list[str], seed: int) -> None:
        self.fleet = Fleet(names, Rules(failures=2, slow_samples=3), dice=Random(seed), listener=self.changed)
        self.now_s = 0.0
        self.out: list[tuple[Endpoint, int, bool]] = []
        self.moves: list[tuple[State, State]] = []
        self.passive = False

    def changed(self, endpoint: Endpoint, before: State, after: State) -> None:
        assert after in MOVES[before]
        assert endpoint.state is after
        if after is State.EJECTED and before is State.READY:
            assert self.passive
            assert self.fleet.ready, "the last one was ejected"

    def step(self, event: tuple[str, int, int]) -> None:
        what, which, amount = event
        fleet, members = self.fleet, self.fleet.endpoints
        if what == "wait":
            self.now_s += amount / 10
        elif what == "ask":
            exclude = [endpoint for endpoint, _, _ in self.out[:which]]
            picked = fleet.pick(amount, self.now_s, exclude)
            usable = {State.READY, State.PROBATION, State.EJECTED}
            if picked is None:
                assert all(each.state not in usable or each in exclude for each in members)
                assert fleet.why_none()
            else:
                assert picked in members
                assert picked.state in usable
                assert picked not in exclude
                if picked.state is State.EJECTED:
                    assert all(each.state is not State.READY or each in exclude for each in members)
                again = bool(which % 2)
                fleet.started(picked, amount, self.now_s, again=again)
                self.out.append((picked, amount, again))
        elif what == "end" and self.out:
            endpoint, rows, again = self.out.pop(which % len(self.out))
            self.passive = True
            fleet.ended(endpoint, rows, list(Outcome)[amount % len(Outcome)], amount / 100, self.now_s, again=again)
            self.passive = False
        elif what == "probe" and members:
            fleet.probed(
                members[which % len(members)], list(Sign)[amount % 4], "so it says", self.now_s - 0.1, self.now_s
            )
        elif what == "members":
            fleet.set_members(dict.fromkeys("abcd"[: which % 5], 1.0 + amount), self.now_s)
        for endpoint in fleet.endpoints:
            mine = [rows for other, rows, _ in self.out if other is endpoint]
            assert (endpoint.outstanding, endpoint.outstanding_rows) == (len(mine), sum(mine))
            assert 0.0 <= endpoint.failing <= 1.0


EVENTS = st.tuples(
    st.sampled_from(["wait", "ask", "ask", "end", "end", "probe", "members"]), st.integers(0, 6), st.integers(0, 40)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=120), st.integers(0, 9))
def test_no_order_of_events_breaks_the_rules(events: list[tuple[str, int, int]], seed: int) -> None:
    script = Script(["a", "b", "c"], seed)
    for endpoint in script.fleet.endpoints:
        script.fleet.probed(endpoint, Sign.READY, "", 0.0, 0.0)
    for event in events:
        script.step(event)


def test_every_failure_is_known_as_one() -> None:
    assert {Outcome.FAILED, Outcome.LOST, Outcome.LATE} == FAILURES
