"""Latency of the tiny model at half of its peak rate. Open loop: Poisson arrivals at a fixed rate, 8 connections.

The peak is measured first, closed loop 8x16, in the same run. The limit then gets the same arrivals at the same rate:
what it shows is the floor of the generator and the kernel, not of the gateway.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from bench import h2load, open_loop, payloads
from bench.context import Context
from bench.errors import BenchError
from bench.figure import Figure
from bench.models import SMALL_MLP

NAME = "load_grpc__half_peak"
CONNECTIONS, STREAMS = 8, 16
FIRST_REQUESTS, PEAK_SECONDS = 2_000, 1.5
SECONDS, QUICK_SECONDS = 4.0, 1.0


def run(context: Context) -> Iterator[Figure]:
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}, outputs=["output"]))
    file = context.body_file(NAME, body)
    seconds = QUICK_SECONDS if context.quick else SECONDS
    with context.server(SMALL_MLP) as server:
        answer_bytes = server.check_answers(SMALL_MLP)
        with context.limit(answer_bytes) as limit:
            peak = _peak_per_s(server.port, file, answer_bytes)
            rate = peak / 2
            context.say(f"peak {peak:,.0f}/s; now {rate:,.0f}/s for {seconds:.0f} s a round")
            runs: dict[int, list[open_loop.Latencies]] = {server.port: [], limit.port: []}
            for port in runs:
                open_loop.run(port, body, rate, min(1.0, seconds), CONNECTIONS)
            for round_ in range(context.rounds):
                for port in sorted(runs, reverse=round_ % 2 == 1):
                    got = open_loop.run(port, body, rate, seconds, CONNECTIONS, seed=round_)
                    if abs(got.answer_bytes - answer_bytes) > max(0.5, 0.005 * answer_bytes):
                        raise BenchError(f"answers of {got.answer_bytes:.1f} bytes, the right one has {answer_bytes}")
                    runs[port].append(got)
                mine = runs[server.port][-1]
                context.say(
                    f"round {round_ + 1}/{context.rounds}: p50 {mine.p50_us:,.0f} us, p99 {mine.p99_us:,.0f} us"
                )
        server.check_answers(SMALL_MLP, seed=2)
    late_us = statistics.median(run.write_late_p99_us for run in runs[server.port])
    note = f"at {rate:,.0f} requests/s; the generator itself was late by {late_us:,.0f} us (p99)"
    for name, field in (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us")):
        mine, theirs = ([getattr(run, field) for run in runs[port]] for port in (server.port, limit.port))
        yield Figure(NAME, name, "us", mine, "lower", theirs, note=note if name == "p50" else "")


def _peak_per_s(port: int, body: Path, answer_bytes: int) -> float:
    """Median of three closed-loop runs, each as long as PEAK_SECONDS at the rate of the one before."""
    requests, rates = FIRST_REQUESTS, []
    for _ in range(5):  # the first two find the speed
        result = h2load.run(port, body, CONNECTIONS, STREAMS, requests)
        result.check("gateway at its peak", answer_bytes)
        rates.append(result.requests_per_s)
        requests = max(FIRST_REQUESTS, int(result.requests_per_s * PEAK_SECONDS))
    return statistics.median(rates[2:])
