"""ns per request from its binding to its settled answer, alone and with a shadow that is compared; no model runs."""

from __future__ import annotations

import numpy as np

from bench.micro.bench_codec__parse import REQUESTS
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.signature import Signature

OUTPUTS = {"1 float": 1, "1,000 floats": 1000}
MEMBERS = 32


def operations() -> list[Operation]:
    found = []
    for name, width in OUTPUTS.items():
        signature = Signature("small_mlp", "1", [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, width))], True)
        answer = np.ones((1, width), np.float32)
        framed = loops().Encode(signature, b"", answer.tobytes(), answer.shape).once()
        for suffix, has_shadow in (("alone", False), ("with a shadow", True)):
            shadowed = loops().Shadowed(signature, REQUESTS["30 floats"], framed, MEMBERS, has_shadow)
            found.append(Operation(f"{name}, {suffix}", repeat=shadowed.repeat, count=MEMBERS))
    return found
