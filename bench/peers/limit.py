"""Servers beside which the gateway is measured. The limit: nghttpd, the C server of the nghttp2 project, serving a file
of the size of the right answer: everything that HTTP/2 costs here, and nothing that a gateway adds. And MLServer.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import environments, procfs
from bench.h2load import tool
from bench.models import Model, write_repository
from bench.payloads import MODEL_INFER
from bench.processes import Child, free_port, wait_until_listening


@dataclass(frozen=True, slots=True)
class Limit:
    """A running nghttpd that answers every POST to the ModelInfer path with `answer_bytes` bytes."""

    port: int
    answer_bytes: int

    def pids(self) -> list[int]:
        return procfs.listeners(self.port)


@contextmanager
def limit(scratch: Path, answer_bytes: int, *, wide_windows: bool = False) -> Iterator[Limit]:
    """Starts nghttpd over a folder made in `scratch`. `wide_windows`: 1 GB, so that uploads never wait for credit."""
    root = scratch / f"limit-{answer_bytes}"
    file = root / MODEL_INFER.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(answer_bytes))
    port = free_port()
    windows = ["-w30", "-W30"] if wide_windows else []
    child = Child(
        [tool("nghttpd"), "--no-tls", "-a", "127.0.0.1", *windows, "-d", str(root), str(port)], scratch / "nghttpd.log"
    )
    try:
        wait_until_listening(port, child)
        yield Limit(port, answer_bytes)
    finally:
        child.kill()


@contextmanager
def mlserver(scratch: Path, model: Model) -> Iterator[int]:
    """MLServer with `model`, in one process without workers behind it (parallel_workers 0: quicker for small models
    than its default); its REST port. NotMeasured when its environment was never made.
    """
    python = environments.python("mlserver")
    root = write_repository(scratch / "mlserver", (model,))
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "debug": False, **ports}
    (root / "settings.json").write_text(json.dumps(settings))
    folder = root / model.name
    described = {
        "name": model.name,
        "implementation": "mlserver_model.OnnxModel",
        "parameters": {"uri": str(folder / "1" / "model.onnx")},
    }
    (folder / "model-settings.json").write_text(json.dumps(described))
    shutil.copy(Path(__file__).with_name("mlserver_model.py"), root)
    command = ["env", f"PYTHONPATH={root}", str(python.with_name("mlserver")), "start", str(root)]
    child = Child(command, scratch / "mlserver.log")
    try:
        wait_until_listening(ports["http_port"], child)
        yield ports["http_port"]
    finally:
        child.kill()
