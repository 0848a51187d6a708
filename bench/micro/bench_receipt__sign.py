"""ns to encode an answer without and with the token that it is reported by: what `feedback: true` adds to a request."""

from __future__ import annotations

import numpy as np

from bench.micro.bench_codec__parse import REQUESTS
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.arm import Arm
from gateway.native.receipt import Receipts, Signer
from gateway.native.signature import Signature

OUTPUTS = {"1 score": 1, "10 scores": 10, "1000 scores": 1000}


def operations() -> list[Operation]:
    found = []
    for name, width in OUTPUTS.items():
        signature = Signature("small_mlp", "1", [("input", "FP32", (-1, 30))], [("output", "FP32", (-1, width))], True)
        outputs = [np.full((1, width), 1 / width, np.float32)]
        receipts = Receipts(Signer(bytes(16)), signature, score_output="output")
        arm = Arm("small_mlp", "1", "candidate", 12, 500)
        for suffix, stamp in (("", None), (", token", receipts)):
            stamped = loops().Stamped(signature, REQUESTS["30 floats"], outputs, arm, stamp)
            found.append(Operation(name + suffix, repeat=stamped.repeat))
    return found
