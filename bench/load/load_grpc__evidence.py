"""What it costs to weigh two versions against each other: a route with a candidate, beside the same one without names.

Closed loop (h2load), one generator thread. Two workers of one build, each over the same two versions, half of the load
to either, take turns, round by round; only in one of them the arms are called stable and candidate, and so compared.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator

from bench import h2load, payloads, procfs
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.load.load_grpc__shadow import two_versions
from bench.models import SMALL_MLP
from bench.routedworker import routed

NAME = "load_grpc__evidence"
SHAPES = ((8, 16, 200_000), (1, 1, 15_000))  # connections, streams on each, requests
TARGET = 0.95


def split(*names: str) -> dict[str, object]:
    """Half of the requests to either version, under these names."""
    arms = [{"version": version, "weight": 50, "arm": name} for version, name in zip("12", names, strict=True)]
    return {SMALL_MLP.name: {"versions": arms}}


def run(context: Context) -> Iterator[Figure]:
    if context.target is not None:
        raise NotMeasured("it compares two workers of its own: not with --target")
    models = two_versions(context.scratch / NAME, SMALL_MLP)
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}))
    file = context.body_file(NAME, body)
    on, off = split("stable", "candidate"), split("left", "right")
    with (
        routed(context.scratch, models, f"{NAME}-on", sys.executable, on) as (with_, _),
        routed(context.scratch, models, f"{NAME}-off", sys.executable, off) as (without, _),
    ):
        answer_bytes = with_.check_answers(SMALL_MLP)
        for connections, streams, requests in SHAPES:
            requests = context.scaled(requests)
            shape = f"{connections}x{streams}"
            ports = with_.port, without.port
            rates: dict[int, list[float]] = {port: [] for port in ports}
            cpu_us: dict[int, list[float]] = {port: [] for port in ports}
            for port in ports:
                h2load.run(port, file, connections, streams, max(connections, requests // 5)).check(shape, answer_bytes)
            for round_ in range(2 * context.rounds + 1):
                for port in sorted(ports, reverse=round_ % 2 == 1):
                    pids = procfs.listeners(port)
                    before_s = procfs.cpu_s(pids)
                    result = h2load.run(port, file, connections, streams, requests)
                    result.check(shape, answer_bytes)
                    rates[port].append(result.requests_per_s)
                    cpu_us[port].append((procfs.cpu_s(pids) - before_s) / requests * 1e6)
                mine, theirs = rates[with_.port][-1], rates[without.port][-1]
                context.say(f"{shape} round {round_ + 1}: {mine:,.0f}/s with, {theirs:,.0f}/s without")
            yield Figure(
                NAME, f"{shape} requests, beside no comparison", "/s", rates[with_.port],
                limit_rounds=rates[without.port], has_share=True, target=TARGET,
            )  # fmt: skip
            more_us = [a - b for a, b in zip(cpu_us[with_.port], cpu_us[without.port], strict=True)]
            yield Figure(
                NAME, f"{shape} server CPU, beside no comparison", "us/request", cpu_us[with_.port], "lower",
                limit_rounds=cpu_us[without.port], note=f"median difference {statistics.median(more_us):.2f} us",
            )  # fmt: skip
