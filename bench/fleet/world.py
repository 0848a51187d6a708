"""Two real tritonservers and a gateway before them, for scenarios: `world.a`, `world.b`, and a proxy before `b`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from bench.fleet.load import ROOT
from bench.fleet.models import ROWS, WIDE
from bench.fleet.proxy import Proxy
from demo.triton.repository import store
from demo.triton.server import TritonServer

READY_S = 60.0


class World:
    """The gateway serves `double` from both, `through` from `a` and the proxy before `b`, and `wide` from both; of
    `moved` it runs version 1 itself, and both run version 2.
    """

    def __init__(self, folder: Path, workers: int = 1) -> None:
        self.folder = folder
        self._workers = workers
        self.a, self.b = (self._triton(name) for name in "ab")
        self._ending = ExitStack()
        with ExitStack() as begun:
            for server in (self.a, self.b):
                begun.callback(server.close)
            with ThreadPoolExecutor(2) as threads:
                list(threads.map(lambda server: server.start(), (self.a, self.b)))
            self.proxy = begun.enter_context(Proxy(self.b.url))
            self._gateway = self._serve()
            begun.callback(self._end_gateway)
            self.gateway_url = self._wait_ready()
            self._ending = begun.pop_all()

    def _triton(self, name: str) -> TritonServer:
        repository = self.folder / name / "models"
        for model in (ROWS, WIDE):
            store(repository, model)
        return TritonServer(repository, self.folder / name, explicit=True, load=("double", "wide"))

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    def _end_gateway(self) -> None:
        if self._gateway.poll() is None:
            self._gateway.terminate()
            try:
                self._gateway.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(self._gateway.pid, signal.SIGKILL)
                self._gateway.wait()

    # --- the gateway

    def _serve(self) -> subprocess.Popen[bytes]:
        models, proxied = self.folder / "gateway", self.proxy.url
        both = [self.a.url, self.b.url]
        for name, remote, urls in (
            ("double", "double", both), ("through", "double", [self.a.url, proxied]), ("wide", "wide", both)
        ):  # fmt: skip
            (models / name / "1").mkdir(parents=True)
            about = {"backend": "triton", "triton": {"endpoints": urls, "model": remote, "version": "1"}}
            (models / name / "model.yaml").write_text(yaml.safe_dump(about))
        # One more, of two versions: the gateway runs the first itself, the servers the second.
        (models / "moved" / "1").mkdir(parents=True)
        (models / "moved" / "2").mkdir()
        (models / "moved" / "1" / "model.onnx").write_bytes(doubling())
        there = {"endpoints": both, "model": "double", "version": "1"}
        (models / "moved" / "2" / "triton.yaml").write_text(yaml.safe_dump(there))
        limits = {"max_message_bytes": 1 << 28, "max_in_flight_bytes": 1 << 30}
        (self.folder / "gateway.yaml").write_text(yaml.safe_dump({"limits": limits}))
        command = [sys.executable, "-m", "gateway", "serve", "--models", str(models), "--log-format", "json"]
        command += ["--port", "0", "--grpc-port", "0", "--control-port", "0", "--workers", str(self._workers)]
        command += ["--config", str(self.folder / "gateway.yaml")]
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))
        with (self.folder / "gateway.log").open("wb") as log:
            return subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )

    def _wait_ready(self) -> str:
        found = self.eventually(lambda: self.events("gateway ready"), "the gateway is ready")
        self._control_url = f"http://127.0.0.1:{found[0]['control_port']}"
        return f"127.0.0.1:{found[0]['grpc_port']}"

    def route(self, model: str, versions: dict[str, int]) -> None:
        """In force when it returns."""
        body = json.dumps({"route": {"versions": versions}, "reason": "a scenario"}).encode()
        headers = {"Content-Type": "application/json", "X-Actor": "bench"}
        request = urllib.request.Request(f"{self._control_url}/v1/routes/{model}", body, headers, method="PUT")

        def is_set() -> bool:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return bool(answer.status == 200)
            except urllib.error.HTTPError as error:
                if error.code not in (404, 409, 503):
                    raise AssertionError(error.read().decode()) from error
            except OSError:
                pass  # the control plane is still starting
            return False

        self.eventually(is_set, f"the route of {model} is {versions}")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log lines of the gateway."""
        lines = (self.folder / "gateway.log").read_text(errors="replace").splitlines()
        return [line for line in map(_parsed, lines) if line.get("event") == name]

    def eventually(self, probe: Callable[[], Any], what: str, timeout_s: float = READY_S) -> Any:
        deadline_s = time.monotonic() + timeout_s
        while not (found := probe()):
            log = (self.folder / "gateway.log").read_text(errors="replace")
            assert self._gateway.poll() is None, f"the gateway ended; its log:\n{log}"
            assert time.monotonic() < deadline_s, f"not within {timeout_s:g} s: {what}; the log of the gateway:\n{log}"
            time.sleep(0.02)
        return found

    @property
    def workers(self) -> list[int]:
        """Process ids of the gateway's workers."""
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                words = (stat.parent / "cmdline").read_bytes().split(b"\0")
                if _parent(stat) == self._gateway.pid and b"worker" in words:
                    found.append(int(stat.parent.name))
            except (OSError, ValueError):
                continue
        return sorted(found)

    @property
    def gateway_fds(self) -> int:
        """Open files of all its processes."""
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                if (
                    int(stat.read_text().rpartition(")")[2].split()[2]) == self._gateway.pid
                    or _parent(stat) == self._gateway.pid
                ):
                    total += len(list(stat.parent.glob("fd/*")))
            except (OSError, ValueError):
                continue
        return total

    # --- the servers

    @contextmanager
    def until_out(self, url: str) -> Iterator[None]:
        """Leaves when the gateway has taken that endpoint out since it was entered."""
        said = "Triton server is not asked as before"
        before = len(self.events(said))

        def is_out() -> bool:
            return any(event["endpoint"] == url for event in self.events(said)[before:])

        yield
        self.eventually(is_out, f"{url} is no longer asked")

    def until_asked(self, server: TritonServer, model: str = "double") -> None:
        """Until the gateway sends to it again; somebody has to send to the gateway."""
        before = inferences(server, model)
        self.eventually(lambda: inferences(server, model) > before, f"{server.url} is asked again")


def doubling() -> bytes:
    """`output` = 2 * `input`, as an ONNX model."""
    from onnx import TensorProto, helper

    shape = ["N", 16]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", "output")]
    node = helper.make_node("Add", ["input", "input"], ["output"])
    graph = helper.make_graph([node], "double", tensors[:1], tensors[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def inferences(server: TritonServer, model: str) -> int:
    """Batches that it answered, by its own count; 0 while it does not say."""
    try:
        with urllib.request.urlopen(f"{server.http_url}/v2/models/{model}/stats", timeout=5) as answer:
            return int(json.load(answer)["model_stats"][0]["execution_count"])
    except (OSError, KeyError, IndexError):
        return 0


def manage(server: TritonServer, model: str, verb: str) -> None:
    """load or unload, behind the gateway's back."""
    request = urllib.request.Request(
        f"{server.http_url}/v2/repository/models/{model}/{verb}", data=b"{}", method="POST"
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _parent(stat: Path) -> int:
    return int(stat.read_text().rpartition(")")[2].split()[1])
