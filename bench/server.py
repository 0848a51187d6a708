"""The gateway under test: `gateway serve` as a user starts it, on free ports, over models made for the run.

Or, with --target, a server that somebody else started; then only what can be seen from outside is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np
import onnxruntime

from bench import payloads, procfs
from bench.errors import BenchError, NotMeasured
from bench.models import Model, write_repository
from bench.processes import Child, free_port, wait_until_listening

READY_S = 120  # loading and warming three tiny models takes seconds; a shared machine may be slow
_CHANNEL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]


@dataclass(slots=True)
class Server:
    """A server that is ready. `child` is None when it is somebody else's."""

    port: int
    child: Child | None
    ready_s: float | None  # from start to SERVING

    def pids(self) -> list[int]:
        """The data-plane processes (those that listen); raises NotMeasured when they are not on this machine."""
        found = procfs.listeners(self.port)
        if not found:
            raise NotMeasured(f"no process of this machine that we may look into listens on port {self.port}")
        return found

    def own_child(self) -> Child:
        """The process that we started; raises NotMeasured with --target."""
        if self.child is None:
            raise NotMeasured("it stops the server: not with --target")
        return self.child

    def check_answers(self, model: Model, count: int = 8, seed: int = 1) -> int:
        """Asks `count` rows one by one and compares with ONNX Runtime's own answers.

        Returns the size in bytes of one answer's gRPC frame; raises BenchError at the first wrong one.
        """
        session = onnxruntime.InferenceSession(model.make().SerializeToString(), providers=["CPUExecutionProvider"])
        size = 0
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=_CHANNEL) as channel:
            call = channel.unary_unary(payloads.MODEL_INFER)
            for row in model.rows(count, seed):
                batch = row[np.newaxis]
                try:
                    answer = call(payloads.infer_request(model.name, {"input": batch}), timeout=10)
                except grpc.RpcError as error:
                    raise BenchError(f"{model.name}: {error.code().name}: {error.details()}") from error
                expected = session.run(None, {"input": batch})[0]
                try:
                    got = payloads.infer_outputs(answer)["output"]
                except (ValueError, KeyError, IndexError) as error:
                    raise BenchError(f"{model.name}: an answer that cannot be read: {error!r}") from error
                if got.shape != expected.shape or not np.allclose(got, expected, atol=model.tolerance):
                    raise BenchError(
                        f"{model.name}: got {got.ravel()[:4]}, ONNX Runtime itself says {expected.ravel()[:4]}"
                    )
                size = len(payloads.grpc_frame(answer))
        return size


@contextmanager
def gateway(
    executable: Path, scratch: Path, models: tuple[Model, ...], models_dir: Path | None = None
) -> Iterator[Server]:
    """Starts `executable` serve over `models`, or `models_dir`, waits until it is SERVING, kills it at the end."""
    if not executable.exists():
        raise BenchError(f"{executable} does not exist: run `make build`, or name another with --gateway")
    root = models_dir or write_repository(scratch / "models", models)
    port = free_port()
    arguments = ["serve", "--models", str(root), "--grpc-port", str(port), "--port", str(free_port())]
    start = time.perf_counter()
    child = Child([str(executable), *arguments, "--control-port", str(free_port())], scratch / "gateway.log")
    try:
        wait_until_serving(port, child)
        yield Server(port, child, time.perf_counter() - start)
    finally:
        child.kill()


def target(address: str) -> Server:
    """A running server at 127.0.0.1:PORT that serves what `--write-models` writes; raises BenchError when none is."""
    host, _, port = address.rpartition(":")
    if host not in ("", "localhost", "127.0.0.1") or not port.isdecimal():
        raise BenchError(f"--target {address!r}: expected 127.0.0.1:PORT (loopback only)")
    wait_until_listening(int(port), None, patience_s=2)
    return Server(int(port), None, None)


def wait_until_serving(port: int, child: Child) -> None:
    end = time.monotonic() + READY_S
    wait_until_listening(port, child, READY_S)
    while True:
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=_CHANNEL) as channel:
            try:
                state = channel.unary_unary(payloads.HEALTH_CHECK)(b"", timeout=2)
                if state == payloads.SERVING:
                    return
                words = f"health says {state.hex() or 'nothing'}"
            except grpc.RpcError as error:
                words = f"health says {error.code().name}: {error.details()}"
        child.check_alive()
        if time.monotonic() > end:
            raise BenchError(f"not SERVING after {READY_S} s; {words}; its log ends: {child.last_words()}")
        time.sleep(0.01)
