"""`hedge: true` with real servers: one that keeps its caller waiting is passed over, and told that nobody waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from demo.triton import wheel
from gateway import pb
from gateway.backends.triton.budget import FLOOR, SHARE
from gateway.backends.triton.latency import LEAST
from tests.support import oip
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.triton import Held, TritonServer, models, serve_remotely, together

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),
    pytest.mark.skipif(bool(wheel.why_not()), reason=wheel.why_not()),
]

AT_ONCE = 120


class Pair:
    """Two servers of the model `held`, and a gateway that sends each request by itself and hedges."""

    def __init__(self, folder: Path) -> None:
        self.servers = together(
            TritonServer(models(folder / name / "models", "held"), folder / name) for name in ("a", "b")
        )
        self.a, self.b = map(Held, self.servers)
        try:
            root = folder / "models"
            wishes = {"hedge": True, "in_flight": AT_ONCE}
            urls = [server.url for server in self.servers]
            serve_remotely(root, "held", urls, triton=wishes, batching={"max_batch_size": 1})
            self.gateway = GatewayProcess(root, folder / "gateway")
            self.channel = oip.connect(self.gateway.grpc_url)
            self.client = oip.Client(self.channel)
            self.asked = 0
        except BaseException:
            self.close_servers()
            raise

    def close(self) -> None:
        try:
            self.channel.close()
            self.gateway.stop()
        finally:
            self.close_servers()

    def close_servers(self) -> None:
        for server in self.servers:
            server.close()

    def begin(self) -> Any:
        """A request with a number of its own and without a deadline; the number and the call."""
        self.asked += 1
        return self.asked, self.client.start(oip.request("held", {"x": np.float32([[self.asked]])}), timeout=None)

    def ask(self) -> int:
        """Right, or it fails here."""
        number, call = self.begin()
        assert_right(number, call)
        return int(number)

    def counted(self) -> tuple[dict[str, float], float]:
        """Attempts that ended, by outcome, and how many were second ones."""
        outcomes: dict[str, float] = {}
        repeated = 0.0
        for (name, *labels), value in self.gateway.metrics().items():
            if name == "gateway_endpoint_attempts_total":
                outcomes[labels[2]] = outcomes.get(labels[2], 0) + value
            elif name == "gateway_endpoint_repeated_total":
                repeated += value
        return outcomes, repeated

    def answered(self) -> tuple[int, int]:
        """Requests that the gateway answered, and that it failed."""
        request = pb.inference.ModelStatisticsRequest(name="held")
        (found,) = self.client.unary("ModelStatistics")(request, timeout=20).model_stats
        return found.inference_stats.success.count, found.inference_stats.fail.count

    def agree(self) -> bool:
        """Every request was answered once, and every attempt is in the metrics."""
        outcomes, repeated = self.counted()
        return sum(outcomes.values()) == self.asked + repeated and self.answered() == (self.asked, 0)


def assert_right(number: int, call: grpc.Future) -> None:
    np.testing.assert_array_equal(oip.arrays(call.result(60))["y"], [[2 * number]])


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("hedging"))
    yield pair
    pair.close()


def test_the_other_server_answers_and_the_late_one_is_told_that_nobody_waits(pair: Pair) -> None:
    for _ in range(2 * LEAST):  # what is usual is known then
        pair.ask()
    _, before = pair.counted()
    pair.a.hold()
    try:
        held: list[int] = []
        while len(held) < 3:  # one at a time: each goes to either
            number = pair.ask()
            held += [number] if number in pair.a.came else []
        eventually(lambda: set(held) <= set(pair.a.left), "it is told of each that nobody waits")
        assert set(held) <= set(pair.b.came), "the other one answered"
    finally:
        pair.a.release()
    eventually(pair.agree, "each was answered once, and all attempts are counted", 30)
    outcomes, repeated = pair.counted()
    assert repeated - before >= len(held)
    assert outcomes["cancelled"] + outcomes["late"] >= len(held)


def test_hedges_are_bounded_by_the_budget_when_all_servers_are_late(pair: Pair) -> None:
    said, hedges = "Triton server is not asked as before", 0.0
    while not hedges:  # those before may have used the budget up, which comes back with time
        before, taken_out = pair.counted()[1], len(pair.gateway.events(said))
        burst(pair)
        if len(pair.gateway.events(said)) == taken_out:  # who is taken out grants retries
            hedges = pair.counted()[1] - before
    assert hedges <= max(FLOOR, SHARE * pair.asked)


def burst(pair: Pair) -> None:
    """Requests at once that all wait on both servers, until some are asked twice, or none may be."""
    before = pair.counted()[1]
    pair.a.hold()
    pair.b.hold()
    try:
        begun = [pair.begin() for _ in range(AT_ONCE)]
        with contextlib.suppress(AssertionError):
            eventually(lambda: pair.counted()[1] > before, "some are asked of the other one too", 5)
    finally:
        pair.a.release()
        pair.b.release()
    for number, call in begun:
        assert_right(number, call)
    eventually(pair.agree, "each was answered once, and all attempts are counted", 30)
