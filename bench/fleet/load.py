"""Load from a process of its own: random rows to a model that doubles them, each answer checked bit by bit.

with Load(gateway.grpc_url, "double") as load:
    load.wait_more(200)      # right answers from now on
load.counts                  # sent = right + refused + wrong
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
COLUMNS = 16
TELL_EVERY_S = 0.02


@dataclass
class Counts:
    sent: int = 0
    right: int = 0
    wrong: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """By code and text."""
    slowest_ms: float = 0.0
    """Of the right answers."""

    @property
    def n_refused(self) -> int:
        return sum(self.refused.values())


class Load:
    def __init__(
        self, url: str, model: str, *, in_flight: int = 12, deadline_s: float = 10.0, reconnect: bool = False
    ) -> None:
        """`reconnect`: every request over a connection of its own."""
        wishes = {
            "url": url, "model": model, "in_flight": in_flight, "deadline_s": deadline_s, "reconnect": reconnect
        }  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.fleet.load", json.dumps(wishes)],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(ROOT))))},
        )
        self.counts = Counts()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Load:
        self.wait_more(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
        self._reader.join(10)
        assert self._process.stdout
        self._process.stdout.close()

    def wait_more(self, n: int, timeout_s: float = 40.0) -> None:
        """Until so many more right answers have come."""
        target, deadline_s = self.counts.right + n, time.monotonic() + timeout_s
        while self.counts.right < target:
            assert self._process.poll() is None, "the load generator ended"
            assert time.monotonic() < deadline_s, f"{self.counts.right} right answers, expected {target}; {self.counts}"
            time.sleep(TELL_EVERY_S)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.counts = Counts(**json.loads(line))


async def flow(url: str, model: str, in_flight: int, deadline_s: float, reconnect: bool) -> None:
    import grpc
    import numpy as np

    from gateway import pb

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    counts, refused = Counts(), Counter[str]()
    counts.refused = refused
    dice = random.Random(1)
    numbers = np.random.default_rng(1)
    rows = [numbers.normal(size=(1 + n % 8, COLUMNS)).astype(np.float32) for n in range(64)]

    def channel() -> Any:
        options = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
        return grpc.aio.insecure_channel(url, options)

    async def ask(call: Any) -> None:
        given = rows[dice.randrange(len(rows))]
        request = pb.inference.ModelInferRequest(model_name=model)
        request.inputs.add(name="input", datatype="FP32", shape=given.shape)
        request.raw_input_contents.append(given.tobytes())
        counts.sent += 1
        began_s = time.monotonic()
        try:
            answer = pb.inference.ModelInferResponse.FromString(
                await call(request.SerializeToString(), timeout=deadline_s)
            )
        except grpc.aio.AioRpcError as error:
            refused[f"{error.code().name}: {error.details()}"] += 1
            await asyncio.sleep(0.01)  # who is refused comes again, but not at once
            return
        if answer.raw_output_contents[0] == (given * 2).tobytes() and list(answer.outputs[0].shape) == [*given.shape]:
            counts.right += 1
            counts.slowest_ms = max(counts.slowest_ms, (time.monotonic() - began_s) * 1e3)
        else:
            counts.wrong += 1

    async def client() -> None:
        method = "/inference.GRPCInferenceService/ModelInfer"
        while not stop.is_set():
            async with channel() as own:
                call = own.unary_unary(method)
                await ask(call)
                while not reconnect and not stop.is_set():
                    await ask(call)

    def tell() -> None:
        print(json.dumps(vars(counts)), flush=True)

    async def report() -> None:
        while True:
            tell()
            await asyncio.sleep(TELL_EVERY_S)

    reporting = asyncio.create_task(report())
    await asyncio.gather(*(client() for _ in range(in_flight)))
    reporting.cancel()
    tell()


if __name__ == "__main__":
    asyncio.run(flow(**json.loads(sys.argv[1])))
