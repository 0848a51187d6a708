"""Whether a server sees our memory: what each that does not says, and that the real proof needs both halves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gateway import pb
from gateway.backends.triton import proof
from gateway.backends.triton.segments import PREFIX, SHM, Segment, new_name

CODE = grpc.StatusCode


class Refused(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class Server:
    """A Triton that sees /dev/shm by `sees(name)`; `ways` to be another."""

    def __init__(self, sees: Callable[[str], bool] = lambda name: (SHM / name).exists(), **ways: Any) -> None:
        self.sees, self.ways = sees, ways
        self.regions: dict[str, Any] = {}

    def answer(self, name: str, fields: dict[str, Any]) -> Any:
        if name in self.ways:
            return self.ways[name]
        if name == "ServerMetadata":
            version, extensions = self.ways.get("version", "2.51.0"), self.ways.get("extensions", [proof.EXTENSION])
            return pb.inference.ServerMetadataResponse(
                name=self.ways.get("name", "triton"), version=version, extensions=extensions
            )
        if name == "SystemSharedMemoryRegister":
            assert fields["key"] == f"/{fields['name']}"
            if not self.sees(fields["name"]):
                return Refused(CODE.INTERNAL, f"Unable to open shared memory region: '{fields['key']}'")
            self.regions[fields["name"]] = fields
            return pb.shared_memory.SystemSharedMemoryRegisterResponse()
        if name == "SystemSharedMemoryUnregister":
            self.regions.pop(fields["name"], None)
            return pb.shared_memory.SystemSharedMemoryUnregisterResponse()
        return pb.shared_memory.SystemSharedMemoryStatusResponse(
            regions={
                key: pb.shared_memory.SystemSharedMemoryStatusResponse.RegionStatus(**each)
                for key, each in self.regions.items()
            }
        )


def drive(server: Server, steps: proof.Asks) -> str:
    answer = None
    try:
        while True:
            answer = server.answer(*steps.send(answer))
    except StopIteration as stop:
        return str(stop.value)


def test_who_sees_our_memory_is_believed_and_keeps_nothing_of_the_question() -> None:
    before, server = {*SHM.glob(f"{PREFIX}*")}, Server()
    assert drive(server, proof.prove()) == ""
    assert not server.regions
    assert {*SHM.glob(f"{PREFIX}*")} <= before


UNSURE = Refused(CODE.UNIMPLEMENTED, "no such method")


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (Server(lambda _: True), "it says that it has opened a region that does not exist"),
        (Server(lambda _: False), "it does not see the shared memory of this process"),
        (Server(version="2.50.0"), "it is 2.50.0, and"),
        (Server(version="2.9.0"), "it is 2.9.0, and"),
        (Server(version="?"), "it is triton ?, and shared memory is Triton's"),
        (Server(name="mlserver"), "it is mlserver 2.51.0, and shared memory is Triton's"),
        (Server(extensions=["classification"]), "it has no extension system_shared_memory"),
        (Server(ServerMetadata=UNSURE), "it does not say what it is: no such method"),
        (Server(SystemSharedMemoryRegister=UNSURE), "it does not register regions: no such method"),
        (Server(SystemSharedMemoryStatus=UNSURE), "it does not say what regions it has: no such method"),
        (
            Server(SystemSharedMemoryStatus=pb.shared_memory.SystemSharedMemoryStatusResponse()),
            "it says something else of a region than it was told",
        ),
    ],
)
def test_who_does_not_says_why(server: Server, reason: str) -> None:
    before = {*SHM.glob(f"{PREFIX}*")}
    assert drive(server, proof.prove()).startswith(reason)
    assert {*SHM.glob(f"{PREFIX}*")} <= before


def test_it_forgets_what_the_dead_registered_and_nothing_else() -> None:
    server, living = Server(lambda _: True), Segment(4096)
    dead = new_name()
    for name in (living.name, dead, "somebody's"):
        server.answer(*proof._register(name, 4096))
    drive(server, proof.sweep())
    assert {*server.regions} == {living.name, "somebody's"}


def test_only_this_machine_is_this_machine() -> None:
    for address in ("127.0.0.1:8001", "localhost:8001", "127.0.0.9:8001"):
        assert proof.where(address) == ""
    assert proof.where("192.0.2.7:8001") == "192.0.2.7 is no address of this machine"
    assert proof.where("no-such-host.invalid:8001").startswith("no-such-host.invalid: ")
