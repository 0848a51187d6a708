"""One row of the table: a load on one peer, what came back, whether it was right, and what it cost.

Both generators are native and count latency from when a request was due, so that a stall shows. They share the cores
with the peer, for every peer alike.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import grpc
import numpy as np

from bench import payloads, procfs
from bench.errors import BenchError
from bench.peers.peer import Peer, Protocol, Running
from bench.peers.works import ALL, Work
from gateway.loadtest import measure
from gateway.native.generator import Generator
from gateway.native.httpgenerator import HttpGenerator

GRPC_SHAPES = {1: (1, 1), 4: (4, 1), 16: (4, 4), 128: (8, 16), 1024: (64, 16)}
"""Connections and streams for so many requests at once."""
OPEN_GRPC, OPEN_REST = (16, 64), (256, 1)
READY_S = 60
RELATIVE, ABSOLUTE = 1e-3, 1e-4
"""FP32 in batches of any size; a wrong row is off by much more."""


@dataclass(frozen=True, slots=True)
class Load:
    protocol: Protocol
    work: str
    at_once: int | None = None
    """Closed loop."""
    of_peak: float | None = None
    """Open loop, at this share of the best rate of a closed one."""

    @property
    def words(self) -> str:
        how = f"{self.at_once} at once" if self.at_once else f"open loop, {100 * (self.of_peak or 0):.0f} % of its peak"
        return f"{self.work} by {self.protocol}, {how}"


def row(
    peer: Peer, running: Running, load: Load, rate_per_s: float | None, seconds: float, warmup_s: float
) -> dict[str, Any]:
    """Measures; measure.LoadFailed when nothing came back."""
    connections, streams = _shape(load)
    shape = measure.Shape(connections, streams, seconds, warmup_s, rate_per_s, seed=1)
    port = running.ports[load.protocol, load.work]
    costs: list[float] = []
    memory: list[int] = []

    def on_edge() -> None:
        pids = running.pids()
        costs.append(procfs.cpu_s(pids))
        memory[:] = [procfs.rss_bytes(pids), procfs.pss_bytes(pids)]

    with measure.connected("127.0.0.1", port, connections) as sockets:
        generator = _generator(peer, load, port, sockets, shape)
        measured = measure.driven(generator, shape, f"{peer.title} on port {port}", on_edge=on_edge)
    right, wrong, example = _check(peer, load, measured.answers) if peer.runs_models else (0, 0, "")
    done = sum(measured.statuses.values())
    latency = {name: _us(measured, q) for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))}
    return {
        "peer": peer.name,
        "protocol": load.protocol,
        "work": load.work,
        "at_once": load.at_once,
        "of_peak": load.of_peak,
        "rate_per_s": rate_per_s,
        "connections": connections,
        "streams": streams,
        "seconds": round(measured.seconds, 3),
        "requests_per_s": round(measured.requests_per_s, 1),
        "latency_us": latency,
        "cpu_s_per_1000": round(1000 * (costs[1] - costs[0]) / done, 5) if done else None,
        "rss_bytes": memory[0],
        "pss_bytes": memory[1],
        "ok": measured.ok,
        "failed": measured.failed,
        "lost": measured.losses,
        "not_sent": measured.waiting,
        "right": right,
        "wrong": wrong,
        "unchecked": measured.unkept if peer.runs_models else None,
        "example": example,
        "generator_late_max_us": measured.late_max_us,
    }


def wait_until_right(peer: Peer, running: Running, load: Load) -> None:
    """Asks one row until the answer comes, and checks it: listening is not yet serving. BenchError: what came last."""
    until_s = time.monotonic() + READY_S
    port = running.ports[load.protocol, load.work]
    while True:
        try:
            answer = _by_rest(peer, load, port) if load.protocol == "REST" else _by_grpc(peer, load, port)
            break
        except (OSError, http.client.HTTPException, grpc.RpcError, BenchError) as error:
            if time.monotonic() > until_s:
                raise BenchError(f"no answer to a first request within {READY_S} s: {error}") from error
            time.sleep(0.1)
    if fault := _fault(peer, load, 0, answer):
        raise BenchError(f"the first answer is wrong: {fault}")


def _by_rest(peer: Peer, load: Load, port: int) -> bytes:
    asked = peer.ask(work_named(load.work), _rows(load.work)[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_S)
    try:
        fields = dict(line.split(": ", 1) for line in asked.headers)
        connection.request("POST", asked.path, asked.body, {"Content-Type": asked.content_type, **fields})
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"HTTP {answer.status}: {data[:200]!r}")
    return data


def _by_grpc(peer: Peer, load: Load, port: int) -> bytes:
    message = payloads.infer_request(load.work, {"input": _rows(load.work)[0]})
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        return measure.frame(channel.unary_unary(payloads.MODEL_INFER)(message, timeout=READY_S))


def _shape(load: Load) -> tuple[int, int]:
    if load.at_once is None:
        return OPEN_GRPC if load.protocol == "gRPC" else OPEN_REST
    return GRPC_SHAPES[load.at_once] if load.protocol == "gRPC" else (load.at_once, 1)


def _generator(
    peer: Peer, load: Load, port: int, sockets: list[Any], shape: measure.Shape
) -> Generator | HttpGenerator:
    work = work_named(load.work)
    plan = measure.plan_us(shape)
    if load.protocol == "REST":
        return HttpGenerator(sockets, [peer.ask(work, each).whole(port) for each in _rows(work.name)], plan)
    frames = [measure.frame(payloads.infer_request(work.name, {"input": each})) for each in _rows(work.name)]
    if peer.grpc_path != measure.INFER_PATH:
        frames = [measure.frame(b"")]
    headers = measure.headers(measure.authority("127.0.0.1", port), peer.grpc_path)
    return Generator(sockets, frames, headers, shape.streams, plan, peer.runs_models)


def _check(peer: Peer, load: Load, answers: Sequence[tuple[int, bytes, int]]) -> tuple[int, int, str]:
    """(right, wrong, the first wrong one)."""
    right = wrong = 0
    example = ""
    for which, data, count in answers:
        if fault := _fault(peer, load, which, data):
            wrong += count
            example = example or fault
        else:
            right += count
    return right, wrong, example


def _fault(peer: Peer, load: Load, which: int, data: bytes) -> str:
    """Why this is not the right answer to that row; empty: it is."""
    wanted = _expected(load.work)[which].ravel()
    try:
        got = (peer.read(data) if load.protocol == "REST" else payloads.infer_outputs(data[5:])["output"]).ravel()
    except (ValueError, KeyError, IndexError, TypeError) as error:
        return f"an answer that cannot be read: {error!r}: {data[:120]!r}"
    if got.size == wanted.size and np.allclose(got, wanted, RELATIVE, ABSOLUTE):
        return ""
    return f"row {which}: got {got[:4]}, expected {wanted[:4]}"


def work_named(name: str) -> Work:
    return next(work for work in ALL if work.name == name)


@cache
def _rows(name: str) -> list[np.ndarray]:
    return work_named(name).rows()


@cache
def _expected(name: str) -> list[np.ndarray]:
    return work_named(name).expected()


def _us(measured: measure.Measurement, q: float) -> float | None:
    return measured.quantile_us(q) if len(measured.latencies_us) else None
