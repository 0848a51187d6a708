"""MLServer with the models by ONNX Runtime, as a custom runtime of its documentation."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bench import environments, models, payloads, procfs, restclient
from bench.peers import peer as peers
from bench.peers.peer import Http, Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from bench.processes import Child, free_port, wait_until_listening

APP = Path(__file__).parent / "apps" / "mlserver_model.py"


@contextmanager
def serving(scratch: Path, model: models.Model) -> Iterator[int]:
    """With a model of the gateway's own benchmarks; its REST port. NotMeasured when its environment was never made."""
    root = models.write_repository(scratch / "mlserver", (model,))
    with _started(root, (model.name,), {}) as (_, ports):
        yield ports["http_port"]


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, max_batch_size: int = 0) -> Iterator[Running]:
    root = write_repository(scratch / "mlserver", works)
    batching = {"max_batch_size": max_batch_size, "max_batch_time": 0.001} if max_batch_size else {}
    with _started(root, tuple(work.name for work in works), batching) as (child, ports):
        for work in works:
            restclient.wait_until_ready(ports["http_port"], work.name, "MLServer")
        grpc, rest = ports["grpc_port"], ports["http_port"]
        yield Running(on_ports(works, grpc=grpc, rest=rest), lambda: procfs.tree(child.process.pid))


@contextmanager
def _started(root: Path, names: tuple[str, ...], batching: Mapping[str, Any]) -> Iterator[tuple[Child, dict[str, int]]]:
    """In one process without workers behind it (parallel_workers 0): quicker for such models than its default."""
    python = environments.python("mlserver")
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, "grpc_max_message_length": -1, **ports}
    (root / "settings.json").write_text(json.dumps(settings))
    for name in names:
        described = {
            "name": name,
            "implementation": "mlserver_model.OnnxModel",
            "parameters": {"uri": str(root / name / "1" / "model.onnx")},
            **batching,
        }
        (root / name / "model-settings.json").write_text(json.dumps(described))
    shutil.copy(APP, root)
    command = [str(python.with_name("mlserver")), "start", str(root)]
    with peers.child(["env", f"PYTHONPATH={root}", *command], root.parent / "mlserver.log", root) as child:
        wait_until_listening(ports["http_port"], child)
        yield child, ports


def ask(work: Work, row: np.ndarray) -> Http:
    """It has no binary tensors by REST, and takes texts in a flat list only."""
    if work.datatype != "BYTES":
        return peers.oip_request(work, row, has_binary=False)
    tensor = {"name": "input", "datatype": "BYTES", "shape": row.shape, "data": payloads.listed(row.ravel())}
    return Http(f"/v2/models/{work.name}/infer", json.dumps({"inputs": [tensor]}).encode())


PEER = Peer(
    name="mlserver",
    title="MLServer",
    protocols=("gRPC", "REST"),
    settings="parallel_workers 0; adaptive batching with max_batch_time 1 ms, or off; images by REST as JSON, for it "
    "has no binary tensors",
    link="https://docs.seldon.ai/mlserver/user-guide/adaptive-batching",
    version=lambda: peers.package_version("mlserver", "mlserver"),
    start=start,
    ask=ask,
    variants=({"max_batch_size": 0}, {"max_batch_size": 64}),
    environment="mlserver",
)
