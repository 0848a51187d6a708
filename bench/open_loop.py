"""Open loop: requests arrive when they arrive, whether or not the answers came.

Arrivals are a Poisson process drawn beforehand. Latency counts from the planned arrival, not from the write, so a
server (or this generator) that stalls makes every request that waited late: no coordinated omission. What the
generator itself was late is reported beside it. h2load --rps is not used: it wakes every 10 ms and sends all that fell
due in one burst, so its median is the time to serve its own burst.
"""

from __future__ import annotations

import gc
import select
import time
from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.http2 import Connection

PATIENCE_S = 10.0  # after the last arrival


@dataclass(frozen=True, slots=True)
class Latencies:
    """Of one run: microseconds from planned arrival to the last byte of the answer."""

    rate_per_s: float  # as planned
    answered: int
    p50_us: float
    p99_us: float
    p999_us: float
    max_us: float
    write_late_p99_us: (
        float  # from planned arrival to our write: the generator's own share, and stream or window limits
    )
    answer_bytes: float  # mean


def run(port: int, body: bytes, rate_per_s: float, seconds: float, connections: int = 8, seed: int = 0) -> Latencies:
    """Sends `body` for `seconds`, round robin over `connections`; raises BenchError when an answer is lost."""
    count = max(1, int(rate_per_s * seconds))
    gaps_ns = np.random.default_rng(seed).exponential(1e9 / rate_per_s, count)
    planned_ns = np.cumsum(gaps_ns).astype(np.int64)
    links = [Connection(port, body).greet() for _ in range(connections)]
    gc.collect()
    gc.disable()
    try:
        written_ns, ended_ns = _drive(links, planned_ns)
    finally:
        gc.enable()
        for link in links:
            link.close()
    lost = sum(link.reset for link in links)
    if lost:
        raise BenchError(f"{lost} of {count} streams were reset at {rate_per_s:.0f} requests/s")
    latency_us = (ended_ns - planned_ns) / 1e3
    p50, p99, p999 = np.percentile(latency_us, (50, 99, 99.9))
    return Latencies(
        rate_per_s=rate_per_s,
        answered=count,
        p50_us=float(p50),
        p99_us=float(p99),
        p999_us=float(p999),
        max_us=float(latency_us.max()),
        write_late_p99_us=float(np.percentile((written_ns - planned_ns) / 1e3, 99)),
        answer_bytes=sum(link.answered_bytes for link in links) / count,
    )


def _drive(links: list[Connection], planned_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Request i goes over link i % n as its (i // n)-th stream, so a stream id is enough to know the request."""
    n, count = len(links), len(planned_ns)
    plan = planned_ns.tolist()
    written, ended = [0] * count, [0] * count
    arrived = sent_all = done = 0
    due = [0] * n  # requests of each link that have arrived so far
    sent = [0] * n
    by_socket = {link.socket: which for which, link in enumerate(links)}
    sockets = list(by_socket)
    clock = time.perf_counter_ns
    start = clock()
    last_chance = plan[-1] + int(PATIENCE_S * 1e9)

    def finish(which: int, now: int) -> None:
        nonlocal done

        def on_end(stream: int) -> None:
            nonlocal done
            ended[(stream >> 1) * n + which] = now
            done += 1

        links[which].receive(on_end)

    while done < count:
        now = clock() - start
        while arrived < count and plan[arrived] <= now:
            due[arrived % n] += 1
            arrived += 1
        if sent_all < arrived:
            for which, link in enumerate(links):
                wanted = min(due[which] - sent[which], link.room())
                if wanted:
                    for k in range(sent[which], sent[which] + wanted):
                        written[k * n + which] = now
                    link.send(wanted)
                    sent[which] += wanted
                    sent_all += wanted
        wait_s = 0.1 if arrived == count else max(0.0, (plan[arrived] - (clock() - start)) / 1e9)
        stuck = [link.socket for link in links if link.has_unsent]
        readable, writable, _ = select.select(sockets, stuck, (), wait_s)
        for ready in writable:
            links[by_socket[ready]].flush()
        if readable:
            now = clock() - start
            for ready in readable:
                finish(by_socket[ready], now)
        elif now > last_chance:
            raise BenchError(f"{count - done} of {count} answers did not come within {PATIENCE_S:.0f} s")
    return np.array(written, np.int64), np.array(ended, np.int64)
