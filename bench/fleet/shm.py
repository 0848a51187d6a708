"""`python -m bench.fleet.shm`: system shared memory beside raw contents, for one tritonserver on this machine.

Direct, without the gateway, one request at a time: what the way itself costs. Inputs are copied into the region for
each request, and answers out of it, as a gateway would have to.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import shared_memory

from bench import results
from bench.fleet.models import DOUBLE, WIDE
from demo.triton.repository import TritonModel, store
from demo.triton.server import TritonServer

RESULT = Path(__file__).parent / "results" / "shm.json"
SIZES = (64, 16_384, 65_536, 131_072, 262_144, 602_112, 4 << 20, 32 << 20)
"""Bytes of the input, and of the output."""
# With the answer of no size the way back costs nothing: most models take more than they give.
SUM = TritonModel(
    "sum",
    WIDE.inputs,
    [("output", "FP32", [1])],
    DOUBLE.replace("rows * 2", "rows[:, :1]"),
    max_batch_size=4,
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fleet.shm", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each size and way")
    parser.add_argument("--out", type=Path, default=RESULT)
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="shm-") as name:
        folder = Path(name)
        for model in (WIDE, SUM):
            store(folder / "models", model)
        with TritonServer(folder / "models", folder / "server") as server:
            for model in ("wide", "sum"):
                for size in SIZES:
                    ways = {"raw": raw(server.url, model, size), "shared": shared(server.url, model, size)}
                    found: dict[str, list[float]] = {way: [] for way in ways}
                    for way in (*ways, *ways):  # in turns: the machine is not the same all the time
                        found[way].append(measure(ways[way], arguments.seconds / 2))
                    medians = {way: statistics.fmean(each) for way, each in found.items()}
                    rows.append({"model": model, "bytes": size, **{f"{way}_us": medians[way] for way in ways}})
                    told = "   ".join(f"{way} {median:>9.0f} us" for way, median in medians.items())
                    print(f"{model:<6}{size:>10} B   {told}   {medians['raw'] / medians['shared']:.2f}", flush=True)
    results.write(arguments.out, {"stamp": results.stamp("shm", "triton"), "rows": rows})
    return 0


def measure(ask: Callable[[], None], seconds: float) -> float:
    """Median microseconds."""
    for _ in range(10):
        ask()
    took, end_s = [], time.monotonic() + seconds
    while time.monotonic() < end_s:
        began = time.perf_counter()
        ask()
        took.append((time.perf_counter() - began) * 1e6)
    return statistics.median(took)


def raw(url: str, model: str, size: int) -> Callable[[], None]:
    client = triton.InferenceServerClient(url)
    values = np.ones((1, size // 4), np.float32)

    def ask() -> None:
        given = triton.InferInput("input", values.shape, "FP32")
        given.set_data_from_numpy(values)
        answer = client.infer(model, [given]).as_numpy("output")
        assert answer[0, 0] in (1, 2)

    return ask


def shared(url: str, model: str, size: int) -> Callable[[], None]:
    client = triton.InferenceServerClient(url)
    values = np.ones((1, size // 4), np.float32)
    key = uuid.uuid4().hex[:12]
    out_size = size if model == "wide" else 4
    regions = {}
    for way, length in (("in", size), ("out", out_size)):
        name = f"{key}_{way}"
        regions[way] = shared_memory.create_shared_memory_region(name, f"/{name}", length)
        client.register_system_shared_memory(name, f"/{name}", length)

    def ask() -> None:
        shared_memory.set_shared_memory_region(regions["in"], [values])
        given = triton.InferInput("input", values.shape, "FP32")
        given.set_shared_memory(f"{key}_in", size)
        wanted = triton.InferRequestedOutput("output")
        wanted.set_shared_memory(f"{key}_out", out_size)
        client.infer(model, [given], outputs=[wanted])
        answer = shared_memory.get_contents_as_numpy(regions["out"], np.float32, (1, out_size // 4)).copy()
        assert answer[0, 0] in (1, 2)

    return ask


if __name__ == "__main__":
    raise SystemExit(main())
