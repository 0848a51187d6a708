"""From a worker's fine histograms to the few bins of a guardrail: cut at edges that were frozen before the start.

The histograms are the same in every worker (ext/gateway/native/scales.pxd and tile.pxd): 32 cells to an octave of
time, 16 to an octave of an output's value. An edge between two of them is exact, so edges are moved there first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np

from gateway.evidence import mean
from gateway.monitoring.tile import latency_bounds_us
from gateway.native.scales import COST_UNIT_NS
from gateway.rollout.baseline import OutputBaseline

Integers = np.ndarray[Any, np.dtype[np.int64]]

_LOWEST, _HIGHEST, _PER_OCTAVE = -16, 16, 16
_FIRST, _N_SIDE = 4, 512
"""Before: NaN, minus and plus infinity, nearly zero; then positive values, then negative ones."""
WORD_BINS = 32
DEFAULT_EDGES = (-100.0, -10.0, -1.0, -0.125, 0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 2.0, 10.0, 100.0)
"""For values that nobody has seen before the start."""


def latency_cell(threshold_us: float) -> int:
    """The first cell that is not below the threshold."""
    return int(np.searchsorted(latency_bounds_us(), threshold_us, side="left"))


def latency_bins(cells: Integers, thresholds_us: Sequence[int]) -> tuple[int, ...]:
    """One more than thresholds, fastest first."""
    cuts = [0, *(latency_cell(threshold) for threshold in thresholds_us), len(cells)]
    return tuple(int(cells[a:b].sum()) for a, b in pairwise(cuts))


@cache
def value_middles() -> np.ndarray[Any, np.dtype[np.float64]]:
    """The middle of each cell of an output's values; NaN where there is none."""
    octaves = 2.0 ** np.arange(_LOWEST, _HIGHEST)[:, None]
    middles = (octaves * (1.0 + (np.arange(_PER_OCTAVE) + 0.5) / _PER_OCTAVE)).ravel()
    return np.concatenate([[math.nan, -math.inf, math.inf, 0.0], middles, -middles])


def on_grid(value: float) -> float:
    """The nearest edge between two cells."""
    if abs(value) < 2.0**_LOWEST:
        return 0.0
    mantissa, exponent = math.frexp(value)
    return math.ldexp(round(mantissa * 2 * _PER_OCTAVE) / (2 * _PER_OCTAVE), exponent)


def value_bins(cells: Integers, frozen: OutputBaseline) -> tuple[int, ...]:
    """Of one column; the last bin is of what is no finite number. Words: by hash, WORD_BINS of them."""
    if not frozen.edges:
        folded = cells[_FIRST : _FIRST + _N_SIDE].reshape(-1, WORD_BINS).sum(axis=0)
        return (*folded.tolist(), int(cells[:_FIRST].sum()))
    found = np.zeros(len(frozen.edges) + 1, np.int64)
    np.add.at(found, _bin_of_cell(frozen.edges)[3:], cells[3:])
    return (*found.tolist(), int(cells[:3].sum()))


@cache
def _bin_of_cell(edges: tuple[float, ...]) -> Integers:
    # nearly zero is on the right of an edge at 0, where its positive half is
    return np.searchsorted(np.array(edges), value_middles(), side="right").astype(np.int64)


@cache
def _cost_z(metric: mean.Metric) -> Integers:
    """Of each cell of execution times per row."""
    low = latency_bounds_us()
    high = np.append(low[1:], low[-1] + 1)
    middles_us = (low + high - 1) / 2.0 * COST_UNIT_NS / 1000.0
    return np.array([metric.quantise(float(value)) for value in middles_us], np.int64)


def cost_moments(cells: Integers, metric: mean.Metric) -> mean.Moments:
    """Each run counts as the middle of its cell, at most 1.6 % off."""
    z = _cost_z(metric)
    used = np.flatnonzero(cells)
    counts, values = cells[used].tolist(), z[used].tolist()
    return mean.Moments(
        sum(counts),
        sum(n * value for n, value in zip(counts, values, strict=True)),
        sum(n * value * value for n, value in zip(counts, values, strict=True)),
    )
