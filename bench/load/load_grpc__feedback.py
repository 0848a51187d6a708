"""What it costs to send a token with each answer: the tiny model with `feedback: true` and without, side by side.

Closed loop (h2load), one generator thread. Held still: the request (30 FP32), the model, the generator, the machine.
Two gateways of one build take turns, round by round. The answer is some 90 bytes longer with a token.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench import payloads, server, turns
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
        plain = without.check_answers(SMALL_MLP)
        ports = (with_.port, _size_with_token(with_, plain)), (without.port, plain)
        yield from turns.compare(context, NAME, "feedback", file, SHAPES, *ports)


def _size_with_token(gateway: server.Server, plain: int) -> int:
    """Of an answer, once the worker has the key."""
    end_s = time.monotonic() + KEY_PATIENCE_S
    while (size := gateway.check_answers(SMALL_MLP)) == plain:
        if time.monotonic() > end_s:
            raise NotMeasured("no answer carries a token")
        time.sleep(0.05)
    return size
