"""Evidence from every stage on, weighed together: what went well long ago must not hide what goes wrong now.

The same rule as in `label`, for tests whose evidence comes as one e-value for each stage to begin at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from gateway.evidence.likelihood import FULL_WEIGHT
from gateway.evidence.numeric import Floats, as_float, log_sum_exp


class Mixture(NamedTuple):
    """`log_e` of all beginnings together, and the row of the one that says most with the log of its weight."""

    log_e: float
    start: int
    log_weight: float


def mix(log_e_by_start: Floats, indices: Sequence[int], restarts: bool = True) -> Mixture:
    """ln of the weighted sum of the e-values that begin at each stage; row 0 is the whole history.

    FULL_WEIGHT for the whole history and (1 - FULL_WEIGHT) / (i (i+1)) for a beginning at the stage of index i >= 1.
    The weights are fixed before the rollout and sum to at most 1, so a weighted sum of e-processes with them is one
    again; a beginning in the future has e = 1, and leaving it out only lowers the sum. Without restarts, row 0 alone.
    """
    if not restarts:
        return Mixture(as_float(log_e_by_start[0]), 0, 0.0)
    weights = [math.log(FULL_WEIGHT)]
    weights += [math.log1p(-FULL_WEIGHT) - math.log(i) - math.log1p(i) for i in indices[1:]]
    weighed = np.asarray(weights) + log_e_by_start
    start = int(np.argmax(weighed))
    return Mixture(as_float(log_sum_exp(weighed)), start, weights[start])
