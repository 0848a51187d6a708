"""ns to read a ModelInferRequest in place: names, shapes and where the tensor lies; no copy, no Python object."""

from __future__ import annotations

import numpy as np

from bench import payloads
from bench.micro.compiled import loops
from bench.micro.harness import Operation
from bench.models import IMAGE_MEAN, SMALL_MLP

REQUESTS = {
    "30 floats": payloads.infer_request("small_mlp", {"input": SMALL_MLP.rows(1)}, outputs=["output"]),
    "30 scalar inputs": payloads.infer_request(
        "table", {f"column_{i}": np.full((1, 1), i, np.float32) for i in range(30)}, request_id="0123456789abcdef"
    ),
    "602 kB": payloads.infer_request("image_mean", {"input": IMAGE_MEAN.rows(1)}),
}


def operations() -> list[Operation]:
    return [Operation(name, repeat=loops().Parse(message).repeat) for name, message in REQUESTS.items()]
