"""Quantiles out of a frozen log-linear histogram, for people: they decide nothing.

Bucket counts of workers add, so a quantile does not depend on how traffic was spread; its error is the bucket width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evidence.counts import count
from gateway.evidence.numeric import log_beta_binomial

PRIOR_EVENTS = 8.0  # weight of the prior in events beyond the quantile: tightest at some 60 of them


@dataclass(frozen=True, slots=True)
class Quantile:
    """A quantile and its anytime-valid confidence interval, in the units of the edges; ends may be -inf and inf."""

    p: float
    value: float
    low: float
    high: float


def log_linear_edges(low: float, high: float, per_octave: int = 32) -> tuple[float, ...]:
    """Edges low 2^k (1 + m / per_octave), from low to the first at or above high.

    Buckets are linear within an octave, so finding one takes the exponent and the top bits of a float's mantissa; with
    32 to the octave none is wider than 3.1 % of its lower edge.
    """
    if not 0.0 < low < high:
        raise ValueError(f"low, high: got {low!r}, {high!r}, expected 0 < low < high")
    edges = []
    octave = low
    while True:
        for m in range(per_octave):
            edges.append(octave * (1.0 + m / per_octave))
            if edges[-1] >= high:
                return tuple(edges)
        octave *= 2.0


def quantile(counts: Sequence[int], edges: Sequence[float], p: float, log_threshold: float = 3.0) -> Quantile | None:
    """The p-quantile of what was counted: `counts[i]` values from edges[i] up to edges[i+1]; None without values.

    value: within the bucket that holds the ceil(p n)-th smallest, spread evenly. low and high: bucket edges at which
    "the share below this edge is p" is rejected by the two-sided beta-binomial test (see `numeric`), taken outwards.
    Source: Howard & Ramdas 2022, section on quantiles with the beta-binomial boundary; ranks at edges are exact.
    Guarantee: contains the p-quantile at all times with probability at least 1 - exp(-log_threshold) for independent
    values of one distribution.
    """
    if len(edges) != len(counts) + 1:
        raise ValueError(f"edges: got {len(edges)}, expected {len(counts) + 1}: one more than counts")
    if not 0.0 < p < 1.0:
        raise ValueError(f"p: got {p!r}, expected a share between 0 and 1, both excluded")
    below = [0]
    for i, in_bucket in enumerate(counts):
        below.append(below[-1] + count(f"counts[{i}]", in_bucket))
    n = below[-1]
    if n == 0:
        return None
    cumulative = np.array(below, np.float64)
    rank = min(max(p * n, 1e-9), float(n))
    bucket = int(np.searchsorted(cumulative, rank, side="left")) - 1
    inside = (rank - below[bucket]) / (below[bucket + 1] - below[bucket])
    value = edges[bucket] + inside * (edges[bucket + 1] - edges[bucket])

    c = PRIOR_EVENTS / min(p, 1.0 - p)
    rejected = log_beta_binomial(cumulative, float(n), p, c) >= log_threshold
    too_low = np.flatnonzero(rejected & (cumulative < p * n))
    too_high = np.flatnonzero(rejected & (cumulative > p * n))
    low = edges[int(too_low[-1])] if too_low.size else -np.inf
    high = edges[int(too_high[0])] if too_high.size else np.inf
    return Quantile(p, float(value), float(low), float(high))
