"""One request over several endpoints: answered once, by somebody, in time, and with what it costs bounded."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from random import Random

import pytest

from gateway.backends.triton.courier import AttemptFailed, Courier, NobodyLeft, TooLate
from gateway.backends.triton.endpoint import Endpoint, Outcome, Sign, State
from gateway.backends.triton.fleet import Fleet


async def turns_until(condition: Callable[[], bool]) -> None:
    """Turns of the loop, and no time, until it is so."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("not within 1000 turns of the loop")


class Wire:
    """Endpoints that answer, fail or hang as each is told, and what was asked of them."""

    def __init__(self, *names: str, hedges: bool = False) -> None:
        clock = asyncio.get_running_loop().time
        self.fleet = Fleet(names, dice=Random(3), listener=self.changed)
        self.courier: Courier[str] = Courier(self.fleet, clock, hedges=hedges)
        self.behaviour: dict[str, Outcome | str] = dict.fromkeys(names, Outcome.OK)
        self.asked: dict[str, int] = defaultdict(int)
        self.cancelled: dict[str, int] = defaultdict(int)
        self.asking = asyncio.Event()
        self.left_s: list[float | None] = []
        for endpoint in self.fleet.endpoints:
            self.fleet.probed(endpoint, Sign.READY, "", clock(), clock())

    def __getitem__(self, address: str) -> Endpoint:
        return next(endpoint for endpoint in self.fleet.endpoints if endpoint.address == address)

    def changed(self, endpoint: Endpoint, before: State, after: State) -> None:
        if after is State.DOWN:
            self.courier.drop(endpoint)

    async def send(self, endpoint: Endpoint, left_s: float | None) -> str:
        self.asked[endpoint.address] += 1
        self.left_s.append(left_s)
        self.asking.set()
        behaviour = self.behaviour[endpoint.address]
        if behaviour == "hang":
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled[endpoint.address] += 1
                raise
        await asyncio.sleep(0)
        if behaviour is Outcome.OK:
            return f"from {endpoint.address}"
        assert isinstance(behaviour, Outcome)
        raise AttemptFailed(behaviour, ValueError(f"{endpoint.address}: {behaviour.value}"))

    async def carry(self, deadline_s: float | None = None) -> str:
        until_s = None if deadline_s is None else asyncio.get_running_loop().time() + deadline_s
        endpoint, answer = await self.courier.carry(self.send, 1, until_s)
        assert answer == f"from {endpoint.address}"
        return answer

    def idle(self) -> bool:
        return all(not endpoint.outstanding and not endpoint.outstanding_rows for endpoint in self.fleet.endpoints)


async def test_who_fails_is_replaced_and_the_caller_hears_nothing_of_it() -> None:
    for outcome in (Outcome.LOST, Outcome.FAILED, Outcome.LATE):
        wire = Wire("a", "b")
        wire.behaviour["a"] = outcome
        # Three at once are the floor of the budget; with half the picks falling on `a` it is not used up at once.
        assert [await wire.carry() for _ in range(3)] == ["from b"] * 3
        assert wire.idle()


async def test_a_refusal_goes_to_the_caller_at_once() -> None:
    wire = Wire("a", "b")
    wire.behaviour = dict.fromkeys("ab", Outcome.REFUSED)
    with pytest.raises(ValueError, match="refused"):
        await wire.carry()
    assert sum(wire.asked.values()) == 1
    assert wire.idle()


async def test_when_all_fail_the_caller_hears_the_last_reason_and_none_was_asked_twice() -> None:
    wire = Wire("a", "b", "c")
    wire.behaviour = dict.fromkeys("abc", Outcome.FAILED)
    with pytest.raises(ValueError, match="failed"):
        await wire.carry()
    assert wire.asked == {"a": 1, "b": 1, "c": 1}


async def test_a_lone_endpoint_is_asked_once_more_over_a_new_connection_but_not_when_its_model_fails() -> None:
    wire = Wire("a")
    wire.behaviour["a"] = Outcome.LOST
    with pytest.raises(ValueError, match="lost"):
        await wire.carry()
    assert wire.asked["a"] == 2
    wire.behaviour["a"] = Outcome.FAILED
    with pytest.raises(ValueError, match="failed"):
        await wire.carry()
    assert wire.asked["a"] == 3


async def test_the_budget_bounds_what_retries_add() -> None:
    wire = Wire("a", "b", "c")
    wire.behaviour = dict.fromkeys("abc", Outcome.FAILED)
    for _ in range(100):
        with pytest.raises(ValueError, match="failed"):
            await wire.carry()
    assert 100 < sum(wire.asked.values()) <= 121


async def test_with_nobody_ready_the_caller_hears_why_at_once() -> None:
    wire = Wire("a")
    wire.fleet.probed(wire["a"], Sign.UNREACHABLE, "connection refused", 0.0, 1.0)
    with pytest.raises(NobodyLeft, match="a: connection refused"):
        await wire.carry()


async def test_what_is_on_its_way_to_an_endpoint_found_dead_goes_elsewhere() -> None:
    wire = Wire("a", "b")
    wire.behaviour = dict.fromkeys("ab", "hang")
    waiting = [asyncio.ensure_future(wire.carry()) for _ in range(20)]
    await turns_until(lambda: sum(wire.asked.values()) == 20)
    on_a = wire.asked["a"]
    assert on_a == 10
    wire.behaviour["b"] = Outcome.OK
    wire.fleet.probed(wire["a"], Sign.UNREACHABLE, "connection refused", 0.0, 1.0)
    await turns_until(lambda: sum(task.done() for task in waiting) == on_a)
    assert {task.result() for task in waiting if task.done()} == {"from b"}
    assert wire.cancelled["a"] == on_a
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert wire.idle()


@pytest.mark.parametrize(("hanging", "well"), [("a", "b"), ("b", "a")])
async def test_a_second_attempt_beside_one_that_hangs_answers_within_the_deadline(hanging: str, well: str) -> None:
    wire = Wire("a", "b")
    wire.behaviour[hanging] = "hang"
    while not wire.asked[hanging]:
        assert await wire.carry(deadline_s=1.5) == f"from {well}"
    await turns_until(lambda: wire.cancelled[hanging] == wire.asked[hanging])
    assert wire.idle()


async def test_a_deadline_that_passes_is_too_late_and_names_who_was_asked() -> None:
    wire = Wire("a", "b")
    wire.behaviour = dict.fromkeys("ab", "hang")
    with pytest.raises(TooLate, match=r"(a, b|b, a)"):
        await wire.carry(deadline_s=0.3)
    await turns_until(lambda: wire.cancelled == {"a": 1, "b": 1})
    assert wire.idle()
    assert wire["a"].counts.outcomes[Outcome.LATE] + wire["b"].counts.outcomes[Outcome.LATE] >= 1
    first_s, second_s = wire.left_s
    assert first_s is not None
    assert second_s is not None
    assert second_s < first_s


async def test_hedging_asks_another_after_the_usual_time_and_cancels_the_loser() -> None:
    wire = Wire("a", "b", hedges=True)
    for _ in range(64):
        await wire.carry()
    assert wire.fleet.hedge_after_s() is not None
    asked = dict(wire.asked)
    wire.behaviour["a"] = "hang"
    for _ in range(6):
        assert await wire.carry() == "from b"
    await turns_until(lambda: wire.courier.hedged == wire.asked["a"] - asked["a"] == wire.cancelled["a"])
    assert wire.courier.hedged >= 1
    assert wire.idle()


async def test_a_caller_who_leaves_cancels_all_its_attempts() -> None:
    wire = Wire("a", "b")
    wire.behaviour = dict.fromkeys("ab", "hang")
    caller = asyncio.ensure_future(wire.carry())
    await wire.asking.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await turns_until(lambda: sum(wire.cancelled.values()) == 1)
    assert wire.idle()
    assert sum(wire[name].counts.outcomes[Outcome.CANCELLED] for name in "ab") == 1


async def test_a_fault_of_ours_is_not_the_endpoints_and_is_not_tried_again() -> None:
    wire = Wire("a", "b")

    async def broken(endpoint: Endpoint, left_s: float | None) -> str:
        wire.asked[endpoint.address] += 1
        raise KeyError("ours")

    with pytest.raises(KeyError):
        await wire.courier.carry(broken, 1)
    assert sum(wire.asked.values()) == 1
    assert wire.idle()
