"""Who is probed, what silence means, and how a name's addresses become members."""

from __future__ import annotations

import asyncio

from gateway.backends.triton.endpoint import Endpoint, Sign, State
from gateway.backends.triton.fleet import Fleet, Rules
from gateway.backends.triton.prober import Prober
from gateway.backends.triton.resolver import Resolver, lookup


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def test_each_endpoint_is_asked_and_what_it_says_counts() -> None:
    said = {"a": (Sign.READY, ""), "b": (Sign.NOT_READY, "loading"), "c": (Sign.UNREACHABLE, "refused")}

    async def ask(endpoint: Endpoint) -> tuple[Sign, str]:
        return said[endpoint.address]

    fleet = Fleet("abc")
    await Prober(fleet, ask, Clock()).once()
    assert [endpoint.state for endpoint in fleet.endpoints] == [State.READY, State.DOWN, State.DOWN]
    assert [endpoint.reason for endpoint in fleet.endpoints] == ["", "loading", "refused"]


async def test_no_answer_in_time_and_a_broken_question_are_silence() -> None:
    async def ask(endpoint: Endpoint) -> tuple[Sign, str]:
        if endpoint.address == "a":
            await asyncio.Event().wait()
        raise ValueError("no such thing")

    fleet = Fleet("ab")
    await Prober(fleet, ask, Clock(), timeout_s=0.01).once()
    assert [endpoint.state for endpoint in fleet.endpoints] == [State.DOWN, State.DOWN]
    assert "does not answer within 0.01 s" in fleet.endpoints[0].reason


async def test_it_goes_on_asking_until_it_is_stopped_and_never_twice_at_once() -> None:
    asking = most = asked = 0
    enough = asyncio.Event()

    async def ask(endpoint: Endpoint) -> tuple[Sign, str]:
        nonlocal asking, most, asked
        asking, asked = asking + 1, asked + 1
        most = max(most, asking)
        await asyncio.sleep(0)
        asking -= 1
        if asked >= 3:
            enough.set()
        return Sign.READY, ""

    prober = Prober(Fleet(["a"], Rules(probe_every_s=0.0, probe_soon_s=0.0)), ask, asyncio.get_running_loop().time)
    prober.start()
    await asyncio.wait_for(enough.wait(), 20)
    await prober.stop()
    assert most == 1
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_members_follow_a_name_and_stay_when_it_cannot_be_resolved() -> None:
    answers: list[list[str] | OSError] = [["a:1", "b:1"], OSError("no answer"), [], ["b:1", "c:1"]]

    async def look_up(host: str, port: int) -> list[str]:
        found = answers.pop(0)
        if isinstance(found, OSError):
            raise found
        return found

    fleet = Fleet([])
    resolver = Resolver(fleet, "triton", 1, Clock(), look_up=look_up)
    seen = []
    for _ in range(4):
        await resolver.once()
        seen.append(([endpoint.address for endpoint in fleet.endpoints], bool(resolver.fault)))
    assert seen == [(["a:1", "b:1"], False), (["a:1", "b:1"], True), (["a:1", "b:1"], True), (["b:1", "c:1"], False)]


async def test_a_name_of_this_machine_resolves() -> None:
    assert "127.0.0.1:8001" in await lookup("localhost", 8001)
