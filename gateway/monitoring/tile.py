"""A tile as people and formulas read it: counts by column, answers by code, latency, and what is outside of
vocabularies.

The integers come from `gateway.native.tile`, which adds them up; here they get their names. Reading is for whoever
decides, never for the request path.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gateway.errors import Code
from gateway.native.tile import Tile
from gateway.native.tileplan import TilePlan

Integers = np.ndarray[Any, np.dtype[np.int64]]

# Where a tile's cells are: ext/gateway/native/plan.pxd and sketch.pxd.
_ROWS, _REQUESTS, _VIOLATIONS, _LATENCY, _COLUMNS = 0, 1, 18, 19, 756
_NAN, _NEG_INF, _POS_INF, _SUM, _SQUARES, _LEAST, _GREATEST = range(7)

N_LATENCY = _COLUMNS - _LATENCY
MAX_QUANTA = 2**20
"""A moment counts rint((x - centre) / scale), cut to +-this: `sum` and `sum_squares` are in these quanta."""

_HLL_LG, _MAX_RANK = 11, 54
HLL_ERROR = 1.04 / math.sqrt(2**_HLL_LG)
"""Standard error of `distinct`: 2.3 %."""


@dataclass(frozen=True, slots=True)
class Outside:
    """What came that is not in a vocabulary."""

    distinct: float
    """About how many different values: see HLL_ERROR."""
    most: tuple[tuple[str, int], ...]
    """Text (its first 47 bytes) and times, most first."""
    lacking: int
    """No value of `most` came more than this oftener than it says, and none that is not there came oftener."""


@dataclass(frozen=True, slots=True)
class TileCounts:
    """`columns` by name. Numeric, summary: counts, below, above, nan, neg_inf, pos_inf, n, sum, sum_squares, least,
    greatest (None: no finite value came). Categorical: counts, other, missing, n. Calibration: counts, outside, n, sum,
    sum_squares. Plain: finite, nan, neg_inf, pos_inf, n, least, greatest. `counts` is int64[], the others whole
    numbers; least and greatest are values of the tensor. Of tensors above 8,192 values only every nth row is
    summarised: `n` is what was looked at.
    """

    columns: Mapping[str, Mapping[str, Any]]
    outside: Mapping[str, Outside]
    """By categorical column; absent where nothing came that is not in the vocabulary."""
    n_rows: int
    """Rows that ran: a request that was cut over several batches counts with all of them."""
    n_requests: int
    """Requests that fit the signature, however they were answered."""
    n_violations: int
    """Requests that were refused because they do not."""
    codes: Mapping[str, int]
    """All requests, by the name of the gRPC code they were answered with."""
    latency: Integers
    """From admission to the answer, of the requests answered OK, by latency_bounds_us."""

    @classmethod
    def of(cls, tile: Tile) -> TileCounts:
        cells = tile.cells
        columns, outside = {}, {}
        for given, (first, n, other) in zip(tile.plan.columns, tile.plan.layout(), strict=True):
            name = given["name"]
            if other < 0:
                columns[name] = _binned(given["kind"], n, cells[first:])
                continue
            counts, (others, missing) = cells[first : first + n].copy(), cells[first + n : first + n + 2].tolist()
            columns[name] = {
                "counts": counts,
                "other": others,
                "missing": missing,
                "n": int(counts.sum()) + others + missing,
            }
            found = tile.others_of(other)
            if found is not None:
                registers, lacking, most = found
                texts = tuple((text.decode("utf-8", "replace"), count) for text, count in most)
                outside[name] = Outside(estimate(registers), texts, lacking)
        codes = {Code(code).name: count for code, count in enumerate(cells[_REQUESTS:_VIOLATIONS].tolist()) if count}
        violations = int(cells[_VIOLATIONS])
        latency = cells[_LATENCY:_COLUMNS].copy()
        return cls(columns, outside, int(cells[_ROWS]), sum(codes.values()) - violations, violations, codes, latency)


def decode(plan: TilePlan, blob: bytes) -> TileCounts:
    """ValueError says what is wrong with the bytes."""
    return TileCounts.of(Tile.from_bytes(plan, blob))


def latency_bounds_us() -> Integers:
    """The least time of each latency cell, in microseconds: whole ones below 64, then 32 to an octave."""
    octaves = np.arange(32, 64, dtype=np.int64)[None, :] << np.arange(22, dtype=np.int64)[:, None]
    return np.concatenate([np.arange(32, dtype=np.int64), octaves.ravel(), [1 << 27]])


def latency_quantile_us(latency: Integers, q: float) -> float:
    """The middle of the cell that holds it: at most 1.6 % off. NaN when nothing was counted."""
    total = int(latency.sum())
    if total == 0:
        return math.nan
    cell = int(np.searchsorted(np.cumsum(latency), max(1, math.ceil(q * total))))
    bounds = latency_bounds_us()
    return float(bounds[cell] + bounds[min(cell + 1, len(bounds) - 1)] - 1) / 2


def estimate(registers: bytes) -> float:
    """Different values, of HyperLogLog's registers by Ertl's improved estimator (arXiv 1702.01284): no bias to correct
    at either end.
    """
    m = 1 << _HLL_LG
    ranks = np.bincount(np.frombuffer(registers, np.uint8), minlength=_MAX_RANK + 1)
    z = m * _tau(1 - ranks[_MAX_RANK] / m)
    for rank in range(_MAX_RANK - 1, 0, -1):
        z = (z + ranks[rank]) / 2
    z += m * _sigma(ranks[0] / m)
    return m * m / (2 * math.log(2)) / float(z) if z else math.inf


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    y, z, before = 1.0, x, -1.0
    while z != before:
        x, before = x * x, z
        z += x * y
        y += y
    return z


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0.0
    y, z, before = 1.0, 1 - x, -1.0
    while z != before:
        x, before, y = math.sqrt(x), z, y / 2
        z -= (1 - x) ** 2 * y
    return z / 3


def _binned(kind: str, n_edges: int, cells: Integers) -> dict[str, Any]:
    inner, after = cells[: n_edges + 1], cells[n_edges + 1 : n_edges + 8].tolist()
    special = {"nan": after[_NAN], "neg_inf": after[_NEG_INF], "pos_inf": after[_POS_INF]}
    total = int(inner.sum()) + sum(special.values())
    moments = {"n": total, "sum": after[_SUM], "sum_squares": after[_SQUARES] % 2**64}
    if kind == "calibration":
        outside = int(inner[0] + inner[-1]) + sum(special.values())
        return {"counts": inner[1:-1].copy(), "outside": outside, **moments}
    least, greatest = after[_LEAST], after[_GREATEST]
    range_ = {"least": -_number(least) if least else None, "greatest": _number(greatest) if greatest else None}
    if kind == "plain":
        return {"finite": int(inner[0]), **special, "n": total, **range_}
    return {
        "counts": inner[1:-1].copy(), "below": int(inner[0]), "above": int(inner[-1]), **special, **moments, **range_,
    }  # fmt: skip


def _number(code: int) -> float:
    """Of sketch.pxd's order_code."""
    bits = np.uint64(code & (2**64 - 1))
    bits = bits ^ np.uint64(1 << 63) if bits >> np.uint64(63) else ~bits
    return float(bits.view(np.float64)) + 0.0
