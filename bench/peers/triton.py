"""Triton out of the wheel nvidia-pytriton, the models by ONNX Runtime in its Python backend; and its front end alone.

The wheel has no ONNX Runtime backend, and no other Triton installs from a package registry. Seen with another client
too: of 1,024 REST connections some hundred never get an answer; they are counted as lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from bench.errors import BenchError, NotMeasured
from bench.peers.peer import Peer, Running, on_ports
from bench.peers.works import Work, write_repository
from demo.triton import wheel
from demo.triton.repository import onnx_model, store
from demo.triton.server import TritonFailed, TritonServer

MAX_BATCH = 128


@contextmanager
def start(scratch: Path, works: tuple[Work, ...], *, instances: int = 1) -> Iterator[Running]:
    try:
        wheel.find()
    except wheel.NoTriton as reason:
        raise NotMeasured(str(reason)) from reason
    models = write_repository(scratch / "onnx", works)
    repository = scratch / "repository"
    for work in works:
        inputs, outputs = [("input", work.datatype, work.row_shape)], [("output", "FP32", (work.outputs,))]
        file = models / work.name / "1" / "model.onnx"
        made = onnx_model(work.name, file, inputs, outputs, max_batch_size=MAX_BATCH, instances=instances)
        store(repository, made)
    server = TritonServer(repository, scratch / "log")
    try:
        server.start()
    except TritonFailed as error:
        server.close()
        raise BenchError(str(error)) from error
    with server:
        ports = {"grpc": int(server.url.rpartition(":")[2]), "rest": int(server.http_url.rpartition(":")[2])}
        yield Running(on_ports(works, **ports), server.processes)


class _Triton(Peer):
    def install(self) -> None:
        wheel.install()


def version() -> str:
    return f"nvidia-pytriton {wheel.VERSION} (tritonserver 2.51), ONNX Runtime {metadata.version('onnxruntime')}"


PEER = _Triton(
    name="triton",
    title="Triton, Python backend",
    protocols=("gRPC", "REST"),
    settings=f"dynamic batcher on, no delay, max_batch_size {MAX_BATCH}; metrics off",
    variants=({"instances": 1}, {"instances": 2}),
    link="https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/optimization.html",
    version=version,
    start=start,
)

LIVE = replace(
    PEER,
    name="triton-live",
    title="ceiling of Triton's front end: ServerLive, no model",
    protocols=("gRPC",),
    settings="as above, and the call ServerLive, which reaches no model",
    grpc_path=b"/inference.GRPCInferenceService/ServerLive",
    runs_models=False,
    works=("small",),
    variants=({},),
)
