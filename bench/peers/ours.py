"""The gateway itself, as `gateway serve` starts it without a setting."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from bench import procfs, server
from bench.peers.peer import Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from bench.processes import Child, free_port


@contextmanager
def start(scratch: Path, works: tuple[Work, ...]) -> Iterator[Running]:
    root = write_repository(scratch / "models", works)
    grpc, rest = free_port(), free_port()
    executable = str(Path(sys.executable).with_name("gateway"))
    command = [executable, "serve", "--models", str(root), "--grpc-port", str(grpc), "--port", str(rest)]
    child = Child([*command, "--control-port", str(free_port())], scratch / "gateway.log")
    try:
        server.wait_until_serving(grpc, child)
        yield Running(on_ports(works, grpc=grpc, rest=rest), lambda: procfs.tree(child.process.pid))
    finally:
        child.kill()


PEER = Peer(
    name="gateway",
    title="this gateway",
    protocols=("gRPC", "REST"),
    settings="gateway serve, no setting: one worker and the control plane; monitoring of the outputs as by default",
    link="README.md",
    version=lambda: f"gateway {metadata.version('gateway')}, ONNX Runtime {metadata.version('onnxruntime')}",
    start=start,
)
