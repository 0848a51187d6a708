"""What befalls a fleet of two real tritonservers under load: nobody gets a wrong answer, and nobody is refused while
one server is well. Longer, with counts: `python -m bench.fleet`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from bench.fleet.scenarios import SCENARIOS
from bench.fleet.world import World
from demo.triton import wheel
from tests.support import oip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not()),
]

N = 60


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("fleet")) as world:
        yield world


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "connects"])
def test_nobody_is_refused_and_nobody_is_told_wrong_when_one_of_two_is(name: str, world: World) -> None:
    counts = SCENARIOS[name](world, N)
    assert counts.wrong == 0
    assert counts.refused == {}
    assert counts.sent == counts.right >= 3 * N


def test_connections_that_come_and_go_leave_nothing_open(world: World) -> None:
    SCENARIOS["connects"](world, 50)
    before = world.gateway_fds
    counts = SCENARIOS["connects"](world, 300)
    assert (counts.wrong, counts.refused) == (0, {})
    world.eventually(lambda: world.gateway_fds <= before + 20, "connections of callers who left are closed")


def test_a_tensor_of_100_megabytes_goes_there_and_back(world: World) -> None:
    values = np.arange(25_000_000, dtype=np.float32).reshape(1, -1)
    with oip.connect(world.gateway_url) as channel:
        answer = oip.Client(channel).infer("wide", {"input": values}, timeout=50)
    assert np.array_equal(answer["output"], values * 2)


def test_with_all_servers_gone_callers_hear_it_at_once_and_why_and_are_served_when_one_is_back(world: World) -> None:
    rows = {"input": np.ones((1, 16), np.float32)}
    with oip.connect(world.gateway_url) as channel:
        client = oip.Client(channel)
        client.infer("double", rows)
        world.a.kill()
        world.b.kill()

        def reason() -> str:
            try:
                client.infer("double", rows, timeout=50)
            except grpc.RpcError as error:
                return f"{error.code().name}: {error.details()}"
            return ""

        world.eventually(lambda: "none of its Triton servers" in reason(), "the version is taken out")
        began_s = time.monotonic()
        told = reason()
        assert time.monotonic() - began_s < 25, "told at once, and not when the deadline of 50 s is over"
        assert told.startswith("UNAVAILABLE")
        assert world.a.url in told
        assert world.b.url in told
        world.a.start()
        world.eventually(lambda: not reason(), "one server is enough")
        world.b.start()
