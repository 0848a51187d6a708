"""Edges of a numeric column from one pass over its values: exact and repeatable for a small data set, by a KLL sketch
for a large one. Where many values are equal, edges are too: the value gets a bin of its own instead.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

EXACT_VALUES = 16384
"""Kept as they are up to here, 128 kB; then the sketch."""

KLL_K = 1024
"""Rank error 0.27 %, 24 kB."""

MAX_FEW = 128
"""Different values that are remembered, for columns of few."""

_PROBE = 1024  # values looked at before all are sorted: a column of many is told by these


class Quantiles:
    """Of the finite values seen; the caller leaves out the others."""

    def __init__(self) -> None:
        self.n = 0
        self.lowest, self.highest = math.inf, -math.inf
        self._kept: list[Array] = []
        self._sketch: Any = None
        self._few: Array | None = np.empty(0)

    def add(self, values: Array) -> None:
        """float64, contiguous."""
        if not len(values):
            return
        self.n += len(values)
        self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))
        self._remember(values)
        if self._sketch is None and self.n <= EXACT_VALUES:
            self._kept.append(values.copy())
            return
        if self._sketch is None:
            from datasketches import kll_doubles_sketch

            self._sketch = kll_doubles_sketch(KLL_K)
            for kept in self._kept:
                self._sketch.update(kept)
            self._kept = []
        self._sketch.update(values)

    def _remember(self, values: Array) -> None:
        for part in (values[:_PROBE], values[_PROBE:]):
            if self._few is None:
                return
            together = np.unique(np.concatenate((self._few, np.unique(part))))
            self._few = together if len(together) <= MAX_FEW else None

    @property
    def few(self) -> Array | None:
        """All different values, sorted, while they are few."""
        return self._few

    def at(self, ranks: Array) -> Array:
        """Values at these shares, 0 to 1: each a value that was seen, so that a tie is a tie."""
        if not self.n:
            return np.zeros(len(ranks))
        if self._sketch is not None:
            return np.asarray(self._sketch.get_quantiles(ranks.tolist()), np.float64)
        return np.asarray(np.quantile(np.concatenate(self._kept), ranks, method="inverted_cdf"))


def choose_edges(quantiles: Quantiles, datatype: str, bins: int, max_few: int) -> Array:
    """Strictly increasing; the last is the number after the greatest value. Up to
    `max_few` different values have a bin each; a value that fills a bin by itself has one, too.
    """
    if not quantiles.n:
        return np.array([0.0, 1.0])
    few = quantiles.few
    if few is not None and len(few) <= max_few:
        starts = few
    else:
        ranks = np.concatenate(([quantiles.lowest], quantiles.at(np.arange(1, bins) / bins)))
        starts, times = np.unique(ranks, return_counts=True)
        after = [next_up(value, datatype) for value in starts[times > 1]]
        starts = np.unique(np.concatenate((starts, after)))
        starts = starts[starts <= quantiles.highest]
    end = next_up(quantiles.highest, datatype)
    if not math.isfinite(end):  # the greatest double: it alone counts as above
        end = quantiles.highest
        starts = starts[starts < end] if (starts < end).any() else np.array([math.nextafter(end, 0)])
    return np.append(starts, end) + 0.0  # no -0.0


def next_up(value: float, datatype: str) -> float:
    """The next number of the datatype, as a double."""
    if datatype == "FP64":
        return math.nextafter(value, math.inf)
    if datatype in ("FP32", "BF16", "FP16"):
        # Of BF16 too: NumPy has no such type, and an edge between two of its numbers is as good.
        kind: Any = np.float16 if datatype == "FP16" else np.float32
        with np.errstate(over="ignore"):
            after = float(np.nextafter(kind(value), kind(np.inf)))
        return after if math.isfinite(after) else math.nextafter(value, math.inf)
    return max(value + 1, math.nextafter(value, math.inf))
