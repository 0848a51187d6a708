"""Requests per second of a tiny model in three shapes, beside the limit. Closed loop (h2load), one generator thread.

Held still: the request (30 FP32), the model, the generator, the machine. The gateway and nghttpd take turns, round by
round, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import h2load, payloads, procfs
from bench.context import Context
from bench.errors import NotMeasured
from bench.figure import Figure
from bench.models import SMALL_MLP

NAME = "load_grpc__small_mlp"
SHAPES = (  # connections, streams on each, requests, target share
    (8, 16, 300_000, 0.45),
    (64, 1, 100_000, 0.60),
    (1, 1, 20_000, 0.60),
)


def run(context: Context) -> Iterator[Figure]:
    body = payloads.grpc_frame(payloads.infer_request(SMALL_MLP.name, {"input": SMALL_MLP.rows(1)}, outputs=["output"]))
    file = context.body_file(NAME, body)
    with context.server(SMALL_MLP) as server:
        answer_bytes = server.check_answers(SMALL_MLP)
        with context.limit(answer_bytes) as limit:
            for connections, streams, requests, target in SHAPES:
                requests = context.scaled(requests)
                shape = f"{connections}x{streams}"
                rates: dict[int, list[float]] = {server.port: [], limit.port: []}
                cpu_us: dict[int, list[float]] = {server.port: [], limit.port: []}
                for port in rates:
                    h2load.run(port, file, connections, streams, max(connections, requests // 5)).check(
                        shape, answer_bytes
                    )
                for round_ in range(context.rounds):
                    for port in sorted(rates, reverse=round_ % 2 == 1):  # who goes first changes every round
                        pids = procfs.listeners(port)
                        before_s = procfs.cpu_s(pids)
                        result = h2load.run(port, file, connections, streams, requests)
                        result.check(f"{'gateway' if port == server.port else 'limit'} {shape}", answer_bytes)
                        rates[port].append(result.requests_per_s)
                        cpu_us[port].append((procfs.cpu_s(pids) - before_s) / requests * 1e6)
                    mine, theirs = rates[server.port][-1], rates[limit.port][-1]
                    context.say(f"{shape} round {round_ + 1}/{context.rounds}: {mine:,.0f}/s, limit {theirs:,.0f}/s")
                yield Figure(
                    NAME, f"{shape} requests", "/s", rates[server.port],
                    limit_rounds=rates[limit.port], has_share=True, target=target,
                )  # fmt: skip
                try:
                    server.pids()
                except NotMeasured:
                    continue
                yield Figure(
                    NAME,
                    f"{shape} server CPU",
                    "us/request",
                    cpu_us[server.port],
                    "lower",
                    limit_rounds=cpu_us[limit.port],
                )
        server.check_answers(SMALL_MLP, seed=2)
