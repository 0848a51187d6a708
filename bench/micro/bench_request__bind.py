"""ns to make a request object, hold it against its signature and free it: one input, and thirty."""

from __future__ import annotations

from bench.micro.bench_codec__parse import REQUESTS
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.signature import Signature


def operations() -> list[Operation]:
    one = Signature("small_mlp", "1", [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, 1))], True)
    columns = [(f"column_{i}", "FP32", (-1, 1)) for i in range(30)]
    thirty = Signature("table", "1", columns, [("output", "FP32", (-1, 1))], True)
    return [
        Operation("30 floats", repeat=loops().Bind(one, REQUESTS["30 floats"]).repeat),
        Operation("30 scalar inputs", repeat=loops().Bind(thirty, REQUESTS["30 scalar inputs"]).repeat),
    ]
