"""A numeric column of a profile in two passes: `see` all values for edges and moments, then `count` them exactly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gateway.monitoring.quantiles import Quantiles, choose_edges

Array = np.ndarray[Any, np.dtype[Any]]

ROWS_PER_BIN = 20
"""Fewer would make a baseline of chance: a bin's share would be known to a quarter of itself at best."""

MIN_BINS = 4

_QUANTA_OF_SIGMA = 10
"""As a power of two: with MAX_QUANTA, moments reach a thousand standard deviations, and no value of a baseline of a
million rows lies further out.
"""


class Numbers:
    """Cells and moments of one column. The values are float64."""

    def __init__(self, datatype: str) -> None:
        self._datatype = datatype
        self.quantiles = Quantiles()
        self._mean = self._squares = 0.0

    def see(self, values: Array) -> None:
        """First pass."""
        with np.errstate(over="ignore", invalid="ignore"):
            mean = float(values.mean()) if len(values) else 0.0
            if not math.isfinite(mean):  # one that is not finite makes the mean so: no look at each where all are
                values = values[np.isfinite(values)]
                mean = float(values.mean()) if len(values) else 0.0
            before, n = self.quantiles.n, len(values)
            if not n:
                return
            self.quantiles.add(values)
            # Chan, Golub and LeVeque's update: no cancellation, whatever the first value was.
            squares = np.square(values - mean)  # not a dot product: BLAS would wake a thread per core for it
            step = mean - self._mean
            self._squares += float(squares.sum()) + step * step * before * n / (before + n)
            self._mean += step * n / (before + n)

    def freeze(self, bins: int) -> None:
        """Between the passes: edges, centre and scale stand from here on."""
        quantiles = self.quantiles
        solid = max(MIN_BINS, min(bins, quantiles.n // ROWS_PER_BIN))
        self.edges = choose_edges(quantiles, self._datatype, solid, bins)
        low, middle, high = quantiles.at(np.array([0.25, 0.5, 0.75])).tolist()
        self._iqr = _finite(high - low)
        self._std = _finite(math.sqrt(self._squares / quantiles.n)) if quantiles.n else 0.0
        exponent = math.frexp(self._std or abs(middle) or 1.0)[1] - 1 - _QUANTA_OF_SIGMA
        self.scale = math.ldexp(1.0, max(-1000, min(1000, exponent)))
        self.centre = _finite(round(middle / self.scale) * self.scale) if abs(middle / self.scale) < 2**52 else middle
        self._cells = np.zeros(len(self.edges) + 1, np.int64)
        self._nan = self._neg_inf = self._pos_inf = 0

    def count(self, values: Array) -> None:
        """Second pass, over the same values."""
        finite = np.isfinite(values)
        if not finite.all():
            self._nan += int(np.isnan(values).sum())
            self._neg_inf += int(np.isneginf(values).sum())
            self._pos_inf += int(np.isposinf(values).sum())
            values = values[finite]
        self._cells += np.bincount(np.searchsorted(self.edges, values, side="right"), minlength=len(self._cells))

    def fields(self) -> dict[str, Any]:
        """Of profile.Numeric. Bins without a row are given to the bin before."""
        counts = self._cells[1:-1]
        kept = counts > 0
        kept[0] = True
        seen = self.quantiles.n > 0
        return {
            "edges": (*self.edges[:-1][kept].tolist(), float(self.edges[-1])),
            "counts": tuple(counts[kept].tolist()),
            "below": int(self._cells[0]),
            "above": int(self._cells[-1]),
            "nan": self._nan,
            "neg_inf": self._neg_inf,
            "pos_inf": self._pos_inf,
            "centre": float(self.centre),
            "scale": self.scale,
            "mean": _finite(self._mean),
            "std": self._std,
            "min": self.quantiles.lowest if seen else 0.0,
            "max": self.quantiles.highest if seen else 0.0,
            "iqr": self._iqr,
        }


def count_in(edges: Array, values: Array) -> Array:
    """Cells below, bins, above; NaN and the infinities in none."""
    finite = values[np.isfinite(values)]
    return np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)


def _finite(value: float) -> float:
    """Near the end of the doubles a spread is beyond it."""
    return 1.7e308 if math.isnan(value) else float(max(-1.7e308, min(1.7e308, value)))
