"""Traffic on a gateway from a process of its own: many requests in flight, each answer checked, until told to stop.

`y = factor * x`, where a version's factor is its number: an answer must be what the version that it names computes.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections import Counter
from types import TracebackType
from typing import Any

import grpc
import numpy as np

from tests.support.gatewayprocess import ROOT

N_CHANNELS = 4
IN_FLIGHT = 8
"""On each channel."""


class Traffic:
    """Runs while its context is open; then `ok` by version, and `failed` by what was wrong."""

    def __init__(self, url: str, model: str, n_channels: int = N_CHANNELS) -> None:
        command = [sys.executable, "-m", "tests.support.traffic", url, model, str(n_channels)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self.ok: dict[str, int] = {}
        self.failed: dict[str, int] = {}

    def __enter__(self) -> Traffic:
        assert self._process.stdout
        assert self._process.stdout.readline() == b"flows\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.send_signal(signal.SIGINT)
        try:
            out, _ = self._process.communicate(timeout=60)
        finally:
            self._process.kill()
        counted = json.loads(out)
        self.ok, self.failed = counted["ok"], counted["failed"]


async def flow(url: str, model: str, n_channels: int) -> None:
    from gateway import pb

    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    request = pb.inference.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    del tensor
    request.raw_input_contents.append(np.ones((1, 4), np.float32).tobytes())
    message = request.SerializeToString()
    ok: Counter[str] = Counter()
    failed: Counter[str] = Counter()

    async def ask(call: Any) -> None:
        while not stop.is_set():
            try:
                answer = pb.inference.ModelInferResponse.FromString(await call(message, timeout=60))
            except grpc.aio.AioRpcError as error:
                failed[f"{error.code().name}: {error.details()}"] += 1
                continue
            factors = set(np.frombuffer(answer.raw_output_contents[0], np.float32).tolist())
            if factors == {float(answer.model_version)}:
                ok[answer.model_version] += 1
            else:
                failed[f"version {answer.model_version} answered {factors}"] += 1

    async with Channels(url, n_channels) as channels:
        calls = [channel.unary_unary("/inference.GRPCInferenceService/ModelInfer") for channel in channels]
        await calls[0](message, timeout=60)
        print("flows", flush=True)
        await asyncio.gather(*(ask(call) for call in calls for _ in range(IN_FLIGHT)))
    print(json.dumps({"ok": ok, "failed": failed}))


class Channels:
    """Channels that do not share a connection."""

    def __init__(self, url: str, n: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        self._channels = [grpc.aio.insecure_channel(url, [*options, ("test.number", number)]) for number in range(n)]

    async def __aenter__(self) -> list[grpc.aio.Channel]:
        return self._channels

    async def __aexit__(self, *_: object) -> None:
        for channel in self._channels:
            await channel.close()


if __name__ == "__main__":
    asyncio.run(flow(sys.argv[1], sys.argv[2], int(sys.argv[3])))
