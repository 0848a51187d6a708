"""`dns:` with real servers and a real DNS server: the fleet is what the name stands for, now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from demo.triton import wheel
from tests.support import nameserver, oip
from tests.support.conditions import eventually
from tests.support.gatewayprocess import GatewayProcess
from tests.support.nameserver import NameServer
from tests.support.triton import Held, TritonServer, models, serve_remotely, together

_WHY_NOT = wheel.why_not() or nameserver.why_not()
pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)]

NAME, LATER = "fleet.test", "later.test"
HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")


class Named:
    """Three servers on one port of three addresses, and a gateway that knows a name for them."""

    def __init__(self, folder: Path) -> None:
        self.names = NameServer()
        first = TritonServer(models(folder / HOSTS[0] / "models", "held"), folder / HOSTS[0]).start()
        port = int(first.url.rpartition(":")[2])
        others = (
            TritonServer(models(folder / host / "models", "held"), folder / host, grpc_port=port, host=host)
            for host in HOSTS[1:]
        )
        try:
            self.servers = [first, *together(others)]
        except BaseException:
            first.close()
            raise
        self.port, self.held = port, {host: Held(each) for host, each in zip(HOSTS, self.servers, strict=True)}
        for model, name in (("held", NAME), ("later", LATER)):
            wishes = {"dns": f"{name}:{port}", "resolve_every": "50ms", "in_flight": 1}
            batching = {"max_batch_size": 1, "linger": False}
            serve_remotely(folder / "models", model, [], remote="held", triton=wishes, batching=batching)
        self.point(HOSTS[0])
        self.gateway = GatewayProcess(
            folder / "models", folder / "gateway", before=nameserver.asking(self.names, folder)
        )
        self.channel = oip.connect(self.gateway.grpc_url)
        self.client = oip.Client(self.channel)
        self.asked = 0

    def close(self) -> None:
        try:
            self.channel.close()
            self.gateway.stop()
        finally:
            for server in self.servers:
                server.close()
            self.names.__exit__()

    def point(self, *hosts: str) -> None:
        self.names.addresses[NAME] = [*hosts]

    def begin(self) -> tuple[int, Any]:
        self.asked += 1
        return self.asked, self.client.start(oip.request("held", {"x": np.float32([[self.asked]])}), timeout=None)

    def ask(self) -> int:
        number, call = self.begin()
        assert_right(number, call)
        return number

    def came_to(self, *hosts: str) -> bool:
        """One more request was answered, by one of these."""
        number = self.ask()
        return any(number in self.held[host].came for host in hosts)

    def begin_at(self, host: str) -> tuple[int, Any]:
        """One that this server has now, and holds; others are answered until then."""
        while True:
            number, call = self.begin()
            eventually(lambda: call.done() or number in self.held[host].came, "somebody has it")  # noqa: B023
            if not call.done():
                return number, call
            assert_right(number, call)

    def taken_out(self, host: str) -> int:
        said = self.gateway.events("Triton server is not asked as before")
        return sum(each["endpoint"] == f"{host}:{self.port}" and each["now"] == "gone" for each in said)

    @property
    def waiting(self) -> int:
        """Requests in the gateway's queue."""
        return int(self.gateway.metrics()["nv_inference_pending_request_count", "held", "1"])

    def connections(self, host: str) -> int:
        """Open ones to that server, in this network."""
        packed = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
        there, established = f"{packed}:{self.port:04X}", "01"
        lines = [
            line.split() for family in ("tcp", "tcp6") for line in Path(f"/proc/net/{family}").read_text().splitlines()
        ]
        return sum(remote.endswith(there) and state == established for _, _, remote, state, *_ in lines)


def assert_right(number: int, call: grpc.Future) -> None:
    np.testing.assert_array_equal(oip.arrays(call.result(60))["y"], [[2 * number]])


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    named = Named(tmp_path_factory.mktemp("named"))
    yield named
    named.close()


@pytest.fixture(autouse=True)
def all_answer(named: Named) -> Iterator[None]:
    yield
    named.names.is_broken = False
    for held in named.held.values():
        held.release()


def test_a_version_waits_for_its_name(named: Named) -> None:
    state, reason = named.client.index()["later", "1"]
    assert state in ("UNAVAILABLE", "LOADING")  # once more
    assert f"triton.dns: {LATER}:{named.port}: Name or service not known" in reason
    with pytest.raises(grpc.RpcError) as caught:
        named.client.infer("later", {"x": np.float32([[1]])})
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    named.names.addresses[LATER] = [HOSTS[2]]
    eventually(lambda: named.client.index()["later", "1"][0] == "READY", "its name is there, and so is it", 30)
    assert named.client.infer("later", {"x": np.float32([[-1]])})["y"] == [[-2]]
    assert -1 in named.held[HOSTS[2]].came


def test_a_server_that_is_added_to_the_name_gets_traffic(named: Named) -> None:
    named.point(*HOSTS[:2])
    eventually(lambda: named.came_to(HOSTS[1]), "the new one is asked")
    eventually(lambda: named.came_to(HOSTS[0]), "and the other one still")


def test_a_fleet_that_grows_takes_more_batches_at_once(named: Named) -> None:
    """As many as its servers may have now, one each, however many there were when the version was loaded."""
    named.point(*HOSTS[:2])
    eventually(lambda: named.came_to(HOSTS[1]), "both are asked")
    for held in named.held.values():
        held.hold()
    begun = [named.begin() for _ in range(6)]
    eventually(lambda: named.waiting == 4, f"one is out for each server, and the others wait: {named.waiting}")
    named.point(*HOSTS)
    eventually(lambda: named.waiting == 3, f"and one more with one server more: {named.waiting}")
    for held in named.held.values():
        held.release()
    for number, call in begun:
        assert_right(number, call)


def test_a_server_that_leaves_the_name_ends_what_it_has_and_gets_nothing_new(named: Named) -> None:
    named.point(*HOSTS[:2])
    stays, goes = HOSTS[0], HOSTS[1]
    eventually(lambda: named.came_to(goes), "both are asked")
    held = named.held[goes]
    held.hold()
    number, call = named.begin_at(goes)
    before = named.taken_out(goes)
    named.point(stays)
    eventually(lambda: named.taken_out(goes) > before, "it is no longer asked")
    assert all(named.came_to(stays) for _ in range(50))
    assert not call.done()
    assert named.connections(goes)
    held.release()
    assert_right(number, call)
    assert not held.left
    eventually(lambda: not named.connections(goes), "nothing is open to it any more")


def test_a_name_that_cannot_be_resolved_keeps_its_servers(named: Named) -> None:
    named.point(*HOSTS[:2])
    eventually(lambda: named.came_to(HOSTS[1]), "both are asked")
    said = len(named.gateway.events("endpoints not resolved"))
    gone = named.taken_out(HOSTS[0]) + named.taken_out(HOSTS[1])
    named.names.is_broken = True
    eventually(lambda: len(named.gateway.events("endpoints not resolved")) > said, "it is in the log")
    eventually(lambda: named.came_to(HOSTS[0]), "asked as before")
    eventually(lambda: named.came_to(HOSTS[1]), "asked as before")
    assert named.taken_out(HOSTS[0]) + named.taken_out(HOSTS[1]) == gone
    named.point(HOSTS[0], HOSTS[2])
    named.names.is_broken = False
    eventually(lambda: named.came_to(HOSTS[2]), "what the name stands for then")
    eventually(lambda: named.taken_out(HOSTS[1]), "it left meanwhile")
