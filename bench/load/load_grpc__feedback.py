"""What it costs to send a token with each answer: the tiny model with `feedback: true` and without, side by side.

Closed loop (h2load), one generator thread. Held still: the request (30 FP32), the model, the generator, the machine.
Two gateways of one build take turns, round by round. The answer is some 90 bytes longer with a token.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from bench import h2load, payloads, procfs, server
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.models import SMALL_MLP

NAME = "load_grpc__feedback"
SHAPES = ((8, 16, 200_000), (64, 1, 80_000), (1, 1, 15_000))  # connections, streams on each, requests
KEY_PATIENCE_S = 20.0


def run(context: Context) -> Iterator[Figure]:
    if context.target is not None:
        raise NotMeasured("it compares two gateways of its own: not with --target")
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}, outputs=["output"]))
    file = context.body_file(NAME, body)
    on, off = context.scratch / "with_feedback", context.scratch / "without_feedback"
    config = on / "models" / SMALL_MLP.name / "model.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("feedback: true\n")
    with (
        server.gateway(context.gateway, on, (SMALL_MLP,)) as with_,
        server.gateway(context.gateway, off, (SMALL_MLP,)) as without,
    ):
        sizes = {without.port: without.check_answers(SMALL_MLP)}
        sizes[with_.port] = _size_with_token(with_, sizes[without.port])
        for connections, streams, requests in SHAPES:
            requests = context.scaled(requests)
            shape = f"{connections}x{streams}"
            rates: dict[int, list[float]] = {port: [] for port in sizes}
            cpu_us: dict[int, list[float]] = {port: [] for port in sizes}
            for port, size in sizes.items():
                h2load.run(port, file, connections, streams, max(connections, requests // 5)).check(shape, size)
            for round_ in range(2 * context.rounds + 1):  # the difference is small: more rounds than elsewhere
                for port in sorted(sizes, reverse=round_ % 2 == 1):  # who goes first changes every round
                    pids = procfs.listeners(port)
                    before_s = procfs.cpu_s(pids)
                    result = h2load.run(port, file, connections, streams, requests)
                    result.check(f"{'with' if port == with_.port else 'without'} {shape}", sizes[port])
                    rates[port].append(result.requests_per_s)
                    cpu_us[port].append((procfs.cpu_s(pids) - before_s) / requests * 1e6)
                mine, theirs = rates[with_.port][-1], rates[without.port][-1]
                context.say(f"{shape} round {round_ + 1}: {mine:,.0f}/s with, {theirs:,.0f}/s without")
            yield Figure(
                NAME, f"{shape} requests, beside no feedback", "/s", rates[with_.port],
                limit_rounds=rates[without.port], has_share=True,
            )  # fmt: skip
            more_us = [a - b for a, b in zip(cpu_us[with_.port], cpu_us[without.port], strict=True)]
            yield Figure(
                NAME,
                f"{shape} server CPU, beside no feedback",
                "us/request",
                cpu_us[with_.port],
                "lower",
                limit_rounds=cpu_us[without.port],
                note=f"median difference {statistics.median(more_us):.2f} us",
            )


def _size_with_token(gateway: server.Server, plain: int) -> int:
    """Of an answer, once the worker has the key."""
    end_s = time.monotonic() + KEY_PATIENCE_S
    while (size := gateway.check_answers(SMALL_MLP)) == plain:
        if time.monotonic() > end_s:
            raise NotMeasured("no answer carries a token")
        time.sleep(0.05)
    return size
