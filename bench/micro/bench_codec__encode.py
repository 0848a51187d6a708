"""ns to write a ModelInferResponse frame from an output array: one float, ten floats, with and without an id."""

from __future__ import annotations

import numpy as np

from bench import payloads
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from gateway.native.signature import Signature

OUTPUTS = {"1 float": np.zeros((1, 1), np.float32), "10 floats": np.zeros((1, 10), np.float32)}
IDS = {"": b"", ", id": b"0123456789abcdef"}
LARGE = {"602 kB": np.zeros((1, 3, 224, 224), np.float32)}


def operations() -> list[Operation]:
    found = []
    for name, array in (OUTPUTS | LARGE).items():
        for suffix, request_id in IDS.items() if name not in LARGE else {"": b""}.items():
            shape = (-1, *array.shape[1:])
            signature = Signature("small_mlp", "1", [("input", "FP32", shape)], [("output", "FP32", shape)], True)
            encode = loops().Encode(signature, request_id, array.tobytes(), array.shape)
            np.testing.assert_array_equal(payloads.infer_outputs(encode.once()[5:])["output"], array)
            found.append(Operation(name + suffix, repeat=encode.repeat))
    return found
