"""A plain grpc.aio server with ONNX Runtime: what one writes when one needs no gateway."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import environments, procfs
from bench.peers import peer as peers
from bench.peers.peer import Peer, Running
from bench.peers.works import Work, write_repository
from bench.processes import free_port, wait_until_listening

APPS = Path(__file__).parent / "apps"
DESCRIPTORS = Path(__file__).parent.parent.parent / "gateway" / "pb" / "descriptors.binpb"
CORES = len(os.sched_getaffinity(0))


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, processes: int) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    port = free_port()
    command = [str(environments.python("grpcaio")), str(APPS / "grpcaio_app.py"), str(port), str(root)]
    command += [str(DESCRIPTORS), str(processes)]
    with peers.child(command, scratch / "grpcaio.log", scratch) as started:
        wait_until_listening(port, started)
        yield Running({("gRPC", work.name): port for work in works}, lambda: procfs.tree(started.process.pid))


PEER = Peer(
    name="grpcaio",
    title="grpc.aio and ONNX Runtime",
    protocols=("gRPC",),
    settings="processes share one port (SO_REUSEPORT), uvloop, the model run in the handler, no batching",
    link="https://grpc.io/docs/guides/performance/#python",
    version=lambda: peers.package_version("grpcaio", "grpcio"),
    start=start,
    variants=tuple({"processes": n} for n in sorted({1, CORES})),
    environment="grpcaio",
)
