"""A gateway of two workers over many small models, each with a candidate beside it, and callers on all of them."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from bench import payloads, procfs
from bench.errors import BenchError
from bench.processes import Child, free_port
from bench.server import wait_until_serving
from gateway.store import Store, WorkerRecord

N_WORKERS = 2
N_CHANNELS = 6
MAX_OPEN = 200
"""Requests in flight; more would wait in this process, and be counted late."""
WIDTH = 4
_OPSET, _IR = 17, 10
_VERSION = re.compile(r"version '?\"?(\d+)")


def model(shift: float = 0.0, *, failing: float = 0.0, broken: float = 0.0, label: str = "") -> bytes:
    """y = x + shift. Of rows with numbers evenly from 0 to 1, the share `failing` is refused and `broken` comes to NaN.

    `label` makes other files of the same model.
    """
    constants = {
        "shift": np.float32(shift), "start": np.array([0], np.int64), "end": np.array([1], np.int64),
        "second": np.array([2], np.int64), "axis": np.array([1], np.int64), "table": np.zeros(1, np.float32),
        "fails_above": np.float32(1.0 - failing), "breaks_above": np.float32(1.0 - broken), "nan": np.float32(np.nan),
    }  # fmt: skip
    nodes = [
        helper.make_node("Add", ["x", "shift"], ["shifted"]),
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["first"]),
        helper.make_node("Greater", ["first", "fails_above"], ["fails"]),
        helper.make_node("Cast", ["fails"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"]),  # the table has one entry
        helper.make_node("Slice", ["x", "end", "second", "axis"], ["other"]),
        helper.make_node("Greater", ["other", "breaks_above"], ["breaks"]),
        helper.make_node("Where", ["breaks", "nan", "nothing"], ["added"]),
        helper.make_node("Add", ["shifted", "added"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in "xy"]
    graph = helper.make_graph(
        nodes,
        "m",
        tensors[:1],
        tensors[1:],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    made.doc_string = label
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString()
    return content


def put(root: Path, name: str, version: int, content: bytes) -> None:
    folder = root / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(content)


@dataclass(slots=True)
class Seen:
    """One request, as its caller saw it. Times by the wall clock, which the gateway's records have, too."""

    model: str
    sent_s: float
    version: str
    has_failed: bool
    is_broken: bool


class Callers:
    """Open loop over some models in turn, from a thread of its own; rows are random, answers are looked at."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.rates: dict[str, float] = {}
        """Requests a second, by model; may change while it runs."""
        self.seen: list[Seen] = []
        self.n_lost = 0
        self.faults: list[str] = []
        self.n_open = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        if self.faults:
            raise BenchError(f"{len(self.faults)} requests could not be counted: {self.faults[0]}")

    def rest(self) -> None:
        """No more requests, and an answer to those that there were."""
        self.rates = {}
        end_s = time.monotonic() + 30
        time.sleep(0.05)
        while self.n_open and time.monotonic() < end_s:
            time.sleep(0.01)

    def of(self, name: str) -> list[Seen]:
        """In order of arrival."""
        return sorted((one for one in self.seen if one.model == name), key=lambda one: one.sent_s)

    async def _run(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{self._port}", options=[*options, ("bench.number", n)])
            for n in range(N_CHANNELS)
        ]
        calls = [channel.unary_unary(payloads.MODEL_INFER) for channel in channels]
        rng = np.random.default_rng(1)
        due: dict[str, float] = {}
        tasks: set[asyncio.Task[None]] = set()
        n = 0
        while not self._stop.is_set():
            now_s = time.monotonic()
            for name, rate in [*self.rates.items()]:
                due.setdefault(name, now_s)
                while rate and due[name] <= now_s and self.n_open < MAX_OPEN:
                    due[name] = max(due[name] + rng.exponential(1.0 / rate), now_s - 1.0)
                    row = rng.random((1, WIDTH), np.float32)
                    n += 1
                    self.n_open += 1
                    task = asyncio.ensure_future(self._ask(calls[n % N_CHANNELS], name, row))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    task.add_done_callback(self._note)
            await asyncio.sleep(0.002)
        if tasks:
            await asyncio.wait(tasks, timeout=20)
        for channel in channels:
            await channel.close()

    def _note(self, task: asyncio.Task[None]) -> None:
        self.n_open -= 1
        if not task.cancelled() and (error := task.exception()):
            self.faults.append(repr(error))

    async def _ask(self, call: Any, name: str, row: np.ndarray[Any, Any]) -> None:
        sent_s = time.time()
        try:
            answer = await call(payloads.infer_request(name, {"x": row}), timeout=20)
        except grpc.aio.AioRpcError as error:
            found = _VERSION.search(error.details() or "")
            if found:
                self.seen.append(Seen(name, sent_s, found[1], True, False))
            else:
                self.n_lost += 1
            return
        value = payloads.infer_outputs(answer)["y"]
        self.seen.append(Seen(name, sent_s, version_of(answer), False, not np.isfinite(value).all()))


def version_of(answer: bytes) -> str:
    """Field 2 of a ModelInferResponse; the name is short and before it."""
    at = 2 + answer[1]
    return answer[at + 2 : at + 2 + answer[at + 1]].decode()


@dataclass(slots=True)
class World:
    models: Path
    state: Path
    port: int
    control_port: int
    child: Child
    store: Store | None = field(default=None)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.control_port, timeout=30)
        try:
            headers = {"X-Actor": "bench", "Content-Type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def start(self, plan: dict[str, Any]) -> str:
        """The rollout's name."""
        status, body = self.ask("POST", "/v1/rollouts", {"plan": plan, "reason": "measured"})
        if status != 201:
            raise BenchError(f"rollout of {plan['model']} not started: {status} {body}")
        return str(body["id"])

    def show(self, rollout: str) -> dict[str, Any]:
        status, body = self.ask("GET", f"/v1/rollouts/{rollout}")
        if status != 200:
            raise BenchError(f"rollout {rollout}: {status} {body}")
        found: dict[str, Any] = body
        return found

    def wait(self, rollout: str, stages: tuple[str, ...], patience_s: float) -> dict[str, Any]:
        """Until it is in one of them."""
        end_s = time.monotonic() + patience_s
        while (found := self.show(rollout))["stage"] not in stages:
            if time.monotonic() > end_s:
                return found
            time.sleep(0.1)
        return found

    def workers(self) -> list[WorkerRecord]:
        if self.store is None:
            self.store = Store.open(f"sqlite:///{self.state / 'gateway.db'}")
        return self.store.workers(seen_within_s=3.0)

    def wait_routed(self, names: list[str], patience_s: float = 60.0) -> None:
        end_s = time.monotonic() + patience_s
        for name in names:
            while self.ask("GET", f"/v1/routes/{name}")[0] != 200:
                if time.monotonic() > end_s:
                    raise BenchError(f"model {name} got no route within {patience_s} s: {self.child.last_words()}")
                time.sleep(0.1)

    def control_cpu_s(self) -> float:
        """Of the control process, since its start."""
        return procfs.cpu_s(procfs.listeners(self.control_port))


@contextmanager
def world(gateway: Path, scratch: Path, versions: dict[str, dict[int, bytes]]) -> Iterator[World]:
    """`versions` by model and number. Only version 1 is there at the start: it becomes stable."""
    shutil.rmtree(scratch, ignore_errors=True)
    models, state = scratch / "models", scratch / "state"
    state.mkdir(parents=True)
    for name, contents in versions.items():
        put(models, name, 1, contents[1])
    ports = [free_port() for _ in range(3)]
    flags = zip(("--port", "--grpc-port", "--control-port"), map(str, ports), strict=True)
    command = [str(gateway), "serve", "--models", str(models), "--state", str(state), "--workers", str(N_WORKERS)]
    child = Child([*command, *(word for flag in flags for word in flag)], scratch / "log")
    found = World(models, state, ports[1], ports[2], child)
    try:
        wait_until_serving(ports[1], child)
        found.wait_routed(list(versions))
        for name, contents in versions.items():
            for number, content in contents.items():
                put(models, name, number, content)
        yield found
    finally:
        if found.store:
            found.store.close()
        with suppress(Exception):
            child.terminate()
        child.kill()


def default_gateway() -> Path:
    return Path(sys.executable).parent / "gateway"
