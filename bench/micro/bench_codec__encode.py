"""ns to write a ModelInferResponse frame from an output array: one float, ten floats, with and without an id."""

from __future__ import annotations

import numpy as np

from bench.micro.harness import Operation

OUTPUTS = {"1 float": np.zeros((1, 1), np.float32), "10 floats": np.zeros((1, 10), np.float32)}


def operations() -> list[Operation]:
    """One per output above, once the codec has an entry that repeats in C."""
    return []
