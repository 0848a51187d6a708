"""One measurement: connections, warm-up, load, and what came back.

Closed loop: each stream sends its next request when its answer came, so a slow server gets less. Open loop: requests
arrive as a Poisson process of a fixed rate whatever the server does, and latency counts from the planned arrival, so a
stall makes everything behind it late (no coordinated omission).
"""

from __future__ import annotations

import contextlib
import gc
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.errors import GatewayError
from gateway.native.generator import Generator
from gateway.native.httpgenerator import HttpGenerator

INFER_PATH = b"/inference.GRPCInferenceService/ModelInfer"
PATIENCE_S = 10.0
"""After the load, for what is still in flight."""
STEP_S = 0.1
"""Between two looks at the progress, and at Ctrl-C."""
CONNECT_S = 5.0
CONNECT_BURST, CONNECT_PAUSE_S = 64, 0.005
"""Above a listener's backlog the kernel drops a connection that this side thinks is made, and it hangs for seconds."""
MAX_PLANNED = 50_000_000


class LoadFailed(GatewayError):
    """Nothing could be measured."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the load looks. `rate_per_s` None: a closed loop."""

    connections: int = 8
    streams: int = 16
    seconds: float = 10.0
    warmup_s: float = 2.0
    rate_per_s: float | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of the load after the warm-up. Latencies in microseconds, of every request that brought a status."""

    seconds: float
    statuses: dict[int, int]
    """By gRPC code."""
    losses: dict[str, int]
    """Requests that brought no status, by reason."""
    waiting: int
    """Open loop: planned, and not begun by the end for want of a free stream."""
    latencies_us: np.ndarray[Any, Any]
    bytes_in: int
    bytes_out: int
    late_max_us: int
    """Open loop: the generator's own worst lateness in beginning a request."""
    answers: list[tuple[int, bytes, int]]
    """(index of the request, the framed answer, how often), of each different answer; warm-up included."""
    unkept: int
    """Answers beyond what is kept for a check."""

    @property
    def ok(self) -> int:
        return self.statuses.get(0, 0)

    @property
    def failed(self) -> int:
        return sum(self.statuses.values()) - self.ok

    @property
    def lost(self) -> int:
        return sum(self.losses.values()) + self.waiting

    @property
    def requests_per_s(self) -> float:
        """Answered OK."""
        return self.ok / self.seconds

    def quantile_us(self, q: float) -> float:
        """NaN without an answer."""
        return float(np.quantile(self.latencies_us, q, method="higher")) if len(self.latencies_us) else float("nan")


def frame(message: bytes) -> bytes:
    """A gRPC message with its prefix."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def run(
    host: str,
    port: int,
    messages: Sequence[bytes],
    shape: Shape,
    on_progress: Callable[[float, int], None] = lambda seconds, done: None,
    keep_answers: bool = True,
) -> Measurement:
    """Send serialized ModelInferRequests in turn. `on_progress(seconds since the warm-up, requests ended)` is called
    about ten times a second. LoadFailed: no connection, or all were closed by the server.
    """
    with connected(host, port, shape.connections) as sockets:
        generator = Generator(
            sockets,
            [frame(message) for message in messages],
            headers(authority(host, port)),
            shape.streams,
            plan_us(shape),
            keep_answers,
        )
        return driven(generator, shape, f"{host}:{port}", on_progress)


def driven(
    generator: Generator | HttpGenerator,
    shape: Shape,
    where: str,
    on_progress: Callable[[float, int], None] = lambda seconds, done: None,
    on_edge: Callable[[], None] = lambda: None,
) -> Measurement:
    """Warm-up, load, the wait for what is in flight. `on_edge` is called where the load begins and where it ends."""
    gc.collect()
    _drive(generator, shape.warmup_s, lambda seconds: on_progress(seconds - shape.warmup_s, generator.n_done))
    generator.restart()
    on_edge()
    began_s = time.monotonic()
    _drive(generator, shape.seconds, lambda seconds: on_progress(seconds, generator.n_done))
    seconds = time.monotonic() - began_s
    on_edge()
    n_alive, waiting = generator.n_alive, generator.n_waiting
    closed = generator.counts()["statuses"], generator.latencies_us
    generator.end()
    until_s = time.monotonic() + PATIENCE_S
    while generator.n_open and time.monotonic() < until_s:
        generator.step(STEP_S)
    generator.give_up()
    counts, latencies_us = generator.counts(), generator.latencies_us
    if not counts["statuses"] and not n_alive:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in counts["losses"].items())
        raise LoadFailed(f"{where} closed every connection without an answer: {reasons or 'nothing was sent'}")
    # The rate of a closed loop is of what ended in the time; every planned request of an open one counts, however late.
    statuses = closed[0] if shape.rate_per_s is None else counts["statuses"]
    return Measurement(
        seconds=seconds,
        statuses=statuses,
        losses=counts["losses"],
        waiting=waiting,
        latencies_us=closed[1] if shape.rate_per_s is None else latencies_us,
        bytes_in=counts["bytes_in"],
        bytes_out=counts["bytes_out"],
        late_max_us=counts["late_max_us"],
        answers=generator.answers,
        unkept=counts["unkept"],
    )


def authority(host: str, port: int) -> bytes:
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode()


def headers(authority: bytes, path: bytes = INFER_PATH) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":authority", authority),
        (b":path", path),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        (b"user-agent", b"gateway-bench"),
    ]


def plan_us(shape: Shape) -> np.ndarray[Any, Any] | None:
    """When each request of an open loop is due, as a Poisson process; None for a closed one."""
    if shape.rate_per_s is None:
        return None
    seconds = shape.warmup_s + shape.seconds
    n = int(shape.rate_per_s * seconds)
    if n > MAX_PLANNED:
        raise LoadFailed(f"{n} requests are more than can be planned ahead, which is {MAX_PLANNED}: shorter, or slower")
    draw = np.random.default_rng(shape.seed)
    plan = np.cumsum(draw.exponential(1e6 / shape.rate_per_s, max(n, 1)))
    return plan[plan < seconds * 1e6].astype(np.int64) if n > 1 else plan.astype(np.int64)


def _drive(generator: Generator | HttpGenerator, seconds: float, tell: Callable[[float], None]) -> None:
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        generator.step(min(STEP_S, seconds - passed_s))
        tell(time.monotonic() - began_s)
        if not generator.n_alive:
            return


@contextlib.contextmanager
def connected(host: str, port: int, n: int) -> Iterator[list[socket.socket]]:
    """Non-blocking TCP connections, closed in the end. LoadFailed names the address and why."""
    with contextlib.ExitStack() as held:
        sockets = []
        for i in range(n):
            if i and i % CONNECT_BURST == 0:
                time.sleep(CONNECT_PAUSE_S)
            try:
                sock = held.enter_context(socket.create_connection((host, port), timeout=CONNECT_S))
            except OSError as error:
                raise LoadFailed(f"no connection to {host}:{port}: {error.strerror or error}") from None
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setblocking(False)
            sockets.append(sock)
        yield sockets
