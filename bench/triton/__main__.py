"""Added latency, throughput and processor time of Triton behind the gateway, against the same Triton asked directly.

    python -m bench.triton                  both models, both batching modes: three minutes; keeps a result
    python -m bench.triton --quick          is it in order? nothing is kept
    python -m bench.triton small            one of the models

One tritonserver runs all the while, with its dynamic batcher on (it never waits) and one instance of the model, in its
Python backend. Per round each way takes its turn: directly, through a gateway that forms batches, and through one that
forwards each request; with large tensors also through one that sends its batches as messages, where the first has them
in shared memory. All of it, and the generator, on the cores of this machine: a way that leaves more of them gets more
done. Every answer is compared with the right one. Processor time is of server, models and gateway, without the
generator's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from bench import payloads, procfs, results
from bench.models import Model, make_image_mean, make_small_mlp
from bench.processes import Child, free_port
from bench.server import wait_until_serving
from demo.triton.repository import onnx_model, store
from demo.triton.server import TritonServer
from gateway.loadtest import measure

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "bench" / "results" / "triton"
WAYS = {
    "direct": "",
    "batches": "",
    "messages": "shared_memory: off",
    "forwards": "",
}
"""With what the gateway's `triton:` section says of each."""


@dataclass(frozen=True)
class Work:
    model: Model
    inputs: list[tuple[str, str, list[int]]]
    outputs: list[tuple[str, str, list[int]]]
    shapes: tuple[tuple[int, int], ...]
    """Connections and requests at once on each."""
    distinct: int
    ways: tuple[str, ...]


WORKS = {
    "small": Work(
        Model("small_mlp", make_small_mlp, (30,)),
        [("input", "FP32", [30])],
        [("output", "FP32", [1])],
        ((1, 1), (8, 4), (8, 16)),
        512,
        ("direct", "batches", "forwards"),
    ),
    "large": Work(
        Model("image_mean", make_image_mean, (3, 224, 224), 1e-4),
        [("input", "FP32", [3, 224, 224])],
        [("output", "FP32", [3])],
        ((1, 1), (4, 4)),
        16,
        ("direct", "batches", "messages", "forwards"),
    ),
}


@dataclass
class Way:
    name: str
    port: int
    pids: list[int]


@contextmanager
def ways(work: Work, scratch: Path) -> Iterator[list[Way]]:
    model = work.model
    file = scratch / "model.onnx"
    file.write_bytes(model.make().SerializeToString())
    with ExitStack() as stack:
        repository = scratch / "repository"
        store(repository, onnx_model(model.name, file, work.inputs, work.outputs))
        server = stack.enter_context(TritonServer(repository, scratch / "triton"))
        found = [Way("direct", int(server.url.rpartition(":")[2]), server.processes())]
        for name in work.ways[1:]:
            root = scratch / name
            (root / model.name / "1").mkdir(parents=True)
            more = f", {WAYS[name]}" if WAYS[name] else ""
            settings = f"backend: triton\ntriton: {{endpoints: ['{server.url}']{more}}}\n"
            settings += "batching: remote\n" if name == "forwards" else ""
            (root / model.name / "model.yaml").write_text(settings)
            port = free_port()
            flags = ["--grpc-port", str(port), "--port", str(free_port()), "--control-port", str(free_port())]
            command = [sys.executable, "-m", "gateway", "serve", "--models", str(root), "--workers", "1", *flags]
            child = Child(command, scratch / f"{name}.log")
            stack.callback(child.kill)
            wait_until_serving(port, child)
            found.append(Way(name, port, procfs.listeners(port)))
        yield found


def measured(way: Way, all_pids: list[int], work: Work, shape: measure.Shape, messages: list[bytes]) -> dict[str, Any]:
    before_s = procfs.cpu_s(all_pids)
    began_s = time.monotonic()
    result = measure.run("127.0.0.1", way.port, messages, shape)
    cpu_s = procfs.cpu_s(all_pids) - before_s
    share = result.seconds / max(result.seconds, time.monotonic() - began_s)  # the warm-up is in the processor time
    wrong = _wrong(result, work, len(messages))
    return {
        "requests_per_s": round(result.requests_per_s, 1),
        "p50_us": round(result.quantile_us(0.5), 1),
        "p99_us": round(result.quantile_us(0.99), 1),
        "cpu_ms_per_request": round(cpu_s * share * 1e3 / max(result.ok, 1), 4),
        "ok": result.ok,
        "failed": result.failed,
        "lost": result.lost,
        "wrong": wrong,
    }


_right: dict[str, np.ndarray[Any, Any]] = {}


def _rows(work: Work) -> np.ndarray[Any, Any]:
    return work.model.rows(work.distinct, 3)


def _wrong(result: measure.Measurement, work: Work, n_messages: int) -> int:
    model = work.model
    if model.name not in _right:
        session = onnxruntime.InferenceSession(model.make().SerializeToString(), providers=["CPUExecutionProvider"])
        _right[model.name] = session.run(None, {"input": _rows(work)})[0]
    wrong = 0
    for index, framed, times in result.answers:
        answer = payloads.infer_outputs(framed[5:])["output"]
        if not np.allclose(answer[0], _right[model.name][index % n_messages], atol=model.tolerance):
            wrong += times
    return wrong


def run(names: list[str], seconds: float, rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        work = WORKS[name]
        with tempfile.TemporaryDirectory(prefix="bench-triton-") as folder, ways(work, Path(folder)) as each:
            messages = [payloads.infer_request(work.model.name, {"input": row[None]}) for row in _rows(work)]
            triton = each[0].pids
            for connections, streams in work.shapes:
                rows: dict[str, list[dict[str, Any]]] = {way: [] for way in work.ways}
                for turn in range(rounds):
                    for way in each if turn % 2 == 0 else reversed(each):
                        pids = triton if way.name == "direct" else triton + way.pids
                        shape = measure.Shape(connections, streams, seconds, seconds / 4)
                        rows[way.name].append(measured(way, pids, work, shape, messages))
                found[f"{name} {connections}x{streams}"] = rows
                _print(f"{name} {connections}x{streams}", rows)
    return found


def _median(rows: list[dict[str, Any]], field: str) -> float:
    return statistics.median(float(row[field]) for row in rows)


def _print(title: str, rows: dict[str, list[dict[str, Any]]]) -> None:
    base = _median(rows["direct"], "requests_per_s")
    for way in rows:
        rate = _median(rows[way], "requests_per_s")
        bad = sum(row["failed"] + row["lost"] + row["wrong"] for row in rows[way])
        p50, p99, cpu = (_median(rows[way], name) for name in ("p50_us", "p99_us", "cpu_ms_per_request"))
        print(
            f"{title:<12} {way:<9} {rate:9.0f}/s  {rate / base:5.2f} of direct  p50 {p50:8.0f} us  p99 {p99:8.0f} us"
            f"  cpu {cpu:7.3f} s/1000  failed, lost or wrong {bad}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.triton", description="See the module's docstring.")
    parser.add_argument("works", nargs="*", help=f"of {', '.join(WORKS)}; all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--no-save", action="store_true")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.works) - WORKS.keys():
        parser.error(f"{', '.join(unknown)}: expected of {', '.join(WORKS)}")
    busy = os.getloadavg()[0]
    stamp = results.stamp("quick" if options.quick else "full", "triton")
    found = run(options.works or list(WORKS), *((1.0, 1) if options.quick else (options.seconds, options.rounds)))
    if not options.quick and not options.no_save:
        file = FOLDER / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.json"
        results.write(file, {**stamp, "load_before": round(busy, 2), "found": found})
        print(f"kept: {file.relative_to(ROOT)}")
    bad = sum(row[k] for rows in found.values() for way in rows.values() for row in way for k in ("lost", "wrong"))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
