"""`python -m demo.triton fleet MODELS`: tritonservers that run version 2 of a model; the gateway runs version 1 itself.

The model is `risk`: of the breast cancer demo its probabilities alone. Both versions are the same network, so whoever
moves traffic from the one to the other may expect the same answers.
"""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from demo.triton.repository import onnx_model, store
from demo.triton.server import TritonServer

MODEL = "risk"
SOURCE = Path("breast_cancer", "2")
OUTPUT = "probabilities"
FIRST_PORT = 8101
RESTART_S = 10.0


def write_versions(models: Path, addresses: list[str]) -> Path:
    """`risk` in the gateway's repository: version 1 as a file, version 2 as a list of servers. The file."""
    source, folder = models / SOURCE, models / MODEL
    if not (source / "model.onnx").exists():
        raise FileNotFoundError(f"{source} is not there: `make demo-models` trains it")
    (folder / "1").mkdir(parents=True, exist_ok=True)
    (folder / "2").mkdir(exist_ok=True)
    file = folder / "1" / "model.onnx"
    _keep_output(source / "model.onnx", file)
    listed = "".join(f"  - {address}\n" for address in addresses)
    about = "# tritonservers on this machine, started by `make triton-fleet`\n"
    (folder / "2" / "triton.yaml").write_text(f'{about}endpoints:\n{listed}version: "1"\n')
    return file


def _keep_output(source: Path, target: Path) -> None:
    """The model with OUTPUT alone."""
    import onnx

    model = onnx.load(source)
    for output in [output for output in model.graph.output if output.name != OUTPUT]:
        model.graph.output.remove(output)
    onnx.save(model, target)


def servers(models: Path, count: int, folder: Path) -> list[TritonServer]:
    """They run version 2, once started."""
    addresses = [f"127.0.0.1:{FIRST_PORT + 10 * number}" for number in range(count)]
    file = write_versions(models, addresses)
    inputs, outputs = _tensors(file)
    found = []
    for number in range(count):
        repository = folder / f"server-{number}" / "models"
        store(repository, onnx_model(MODEL, file, inputs, outputs))
        port = FIRST_PORT + 10 * number
        found.append(TritonServer(repository, folder / f"server-{number}", grpc_port=port))
    return found


def _tensors(file: Path) -> tuple[list[tuple[str, str, list[int]]], list[tuple[str, str, list[int]]]]:
    """Inputs and outputs as config.pbtxt has them: without the rows."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    inputs = [(tensor.name, "FP32", [int(size) for size in tensor.shape[1:]]) for tensor in session.get_inputs()]
    width = session.run(None, {name: _zeros(sizes) for name, _, sizes in inputs})[0].shape[1]
    return inputs, [(OUTPUT, "FP32", [width])]


def _zeros(sizes: list[int]) -> object:
    import numpy as np

    return np.zeros((1, *sizes), np.float32)


def run(models: Path, count: int, restart_s: float = RESTART_S) -> int:
    """Until Ctrl-C. A server that is killed is started again after a while."""
    stop = threading.Event()

    def end(number: int, frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    with tempfile.TemporaryDirectory(prefix="triton-fleet-") as folder:
        try:
            fleet = servers(models, count, Path(folder))
        except FileNotFoundError as error:
            print(error, file=sys.stderr)
            return 1
        try:
            with ThreadPoolExecutor(count) as threads:
                list(threads.map(lambda server: server.start(), fleet))
            for server in fleet:
                print(f"tritonserver at {server.url} runs {MODEL}, process {server.pid}", flush=True)
            print(f"{models / MODEL}: version 1 runs in the gateway, version 2 there. Ctrl-C ends them.", flush=True)
            watch(fleet, stop, restart_s)
        finally:
            for server in fleet:
                server.close()
    return 0


def watch(fleet: list[TritonServer], stop: threading.Event, restart_s: float) -> None:
    gone_s: dict[TritonServer, float] = {}
    while not stop.wait(0.2):
        for server in fleet:
            if server.lives:
                continue
            if server not in gone_s:
                gone_s[server] = time.monotonic()
                print(f"tritonserver at {server.url} is gone; it comes back in {restart_s:g} s", flush=True)
            elif time.monotonic() - gone_s[server] >= restart_s:
                del gone_s[server]
                server.start()
                print(f"tritonserver at {server.url} is back, process {server.pid}", flush=True)
