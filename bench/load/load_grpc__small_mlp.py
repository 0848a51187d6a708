"""Requests per second of a tiny model in three shapes, beside the limit. Closed loop (h2load), one generator thread.

Held still: the request (30 FP32), the model, the generator, the machine. The gateway and nghttpd take turns, round by
round, so that whatever else the machine does falls on both.
"""

from __future__ import annotations

from collections.abc import Iterator

from bench import payloads, turns
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
                mine, theirs = turns.take(
                    context, file, connections, streams, context.scaled(requests), context.rounds,
                    ("gateway", server.port, answer_bytes), ("limit", limit.port, answer_bytes),
                )  # fmt: skip
                shape = f"{connections}x{streams}"
                yield Figure(
                    NAME, f"{shape} requests", "/s", mine.per_s,
                    limit_rounds=theirs.per_s, has_share=True, target=target,
                )  # fmt: skip
                try:
                    server.pids()
                except NotMeasured:
                    continue
                yield Figure(
                    NAME, f"{shape} server CPU", "us/request", mine.cpu_us, "lower", limit_rounds=theirs.cpu_us
                )
        server.check_answers(SMALL_MLP, seed=2)
