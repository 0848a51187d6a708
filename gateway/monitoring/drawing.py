"""Distributions for people: counts over bins of any width, laid out on a ruler of equal cells.

A profile's bins hold about as many rows each, so their counts say nothing to the eye; how dense they are does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

_BLOCKS = " ▁▂▃▄▅▆▇█"


def ruler(edges: Sequence[float], counts: Sequence[int], n_cells: int) -> Array:
    """n_cells + 1 marks over where the rows are: a long thin tail at either end of less than a hundredth is cut."""
    e, c = np.asarray(edges, np.float64), np.asarray(counts, np.float64)
    total = c.sum()
    if not total:
        return np.linspace(e[0], e[-1], n_cells + 1)
    share = np.concatenate(([0.0], np.cumsum(c))) / total
    # Where the cumulative share, linear within bins, is half a percent from either end.
    low, high = np.interp([0.005, 0.995], share, e)
    widths = np.diff(e)
    span = max(high - low, float(widths[c > 0].min()))
    low, high = (e[0] if low - e[0] < 0.15 * span else low), (e[-1] if e[-1] - high < 0.15 * span else high)
    if not high > low:
        low, high = low - 0.5, low + 0.5
    return np.linspace(low, high, n_cells + 1)


def spread(edges: Sequence[float], counts: Sequence[int], marks: Array) -> Array:
    """Rows in each cell of the ruler, taking each bin as even; what lies outside falls into the outer cells."""
    e, c = np.asarray(edges, np.float64), np.asarray(counts, np.float64)
    share = np.concatenate(([0.0], np.cumsum(c)))
    inner = np.interp(marks, e, share)
    inner[0], inner[-1] = 0.0, share[-1]
    return np.diff(inner)


def sparkline(amounts: Sequence[float] | Array, highest: float | None = None) -> str:
    """A character for each; anything above nothing shows."""
    top = max(amounts, default=0.0) if highest is None else highest
    if not top > 0:
        return _BLOCKS[0] * len(amounts)
    steps = len(_BLOCKS) - 1
    return "".join(_BLOCKS[0 if not a > 0 else max(1, min(steps, round(a / top * steps)))] for a in amounts)


def bar(share: float, width: int) -> str:
    """A horizontal bar in eighths of a character, `width` characters for 1."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[rest]


def number(value: float) -> str:
    """Short, and a whole number as one."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.4g}"
