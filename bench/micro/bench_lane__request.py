"""ns per request to admit it, form its batch and settle it, without running a model: batches of 1, 16 and 64 rows."""

from __future__ import annotations

from bench.micro.bench_codec__parse import REQUESTS
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.signature import Signature


def operations() -> list[Operation]:
    signature = Signature("small_mlp", "1", [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, 1))], True)
    found = []
    for rows in (1, 16, 64):
        for suffix, has_deadlines in (("", False), (", deadlines", True)):
            queue = loops().Queue(signature, REQUESTS["30 floats"], rows, has_deadlines)
            found.append(Operation(f"batch of {rows}{suffix}", repeat=queue.repeat, count=rows))
    return found
