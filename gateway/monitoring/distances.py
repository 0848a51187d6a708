"""How far two distributions are apart, from the counts of their cells: pure functions of integers.

`now` and `base` are counts over the same cells on the last axis; leading axes are columns at once. Two samples of one
population are never at distance 0; what chance alone gives is known, so it is subtracted where that is said
(`corrected_psi`), and below `least_n` a number means nothing. In formulas: n = sum now, n0 = sum base, B cells that are
not empty on both sides, q = now / n, p = base / n0, k = 1/n + 1/n0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special as special  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Counts = npt.ArrayLike

ADDED = 0.5
"""To every cell of both sides, so that an empty one costs no infinity. Krichevsky and Trofimov's half."""


def psi(now: Counts, base: Counts, added: float = ADDED) -> Floats:
    """Population stability index, sum (q - p) ln(q / p), with `added` to each cell that some side has seen.

    0 for equal shares. By custom .1 is worth a look, .25 is a change: a normal's mean off by .32 and .5 deviations.
    """
    q, p = smoothed(now, base, added)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(q == p, 0.0, (q - p) * np.log(q / p))
    result: Floats = terms.sum(-1)
    return result


def corrected_psi(now: Counts, base: Counts) -> Floats:
    """max(0, psi - (B - 1) k): without what samples of one population show on average."""
    result: Floats = np.maximum(0.0, psi(now, base) - chance(now, base))
    return result


def chance(now: Counts, base: Counts) -> Floats:
    """(B - 1) k: the mean of psi between two samples of one population, and 8 times that of the JS divergence."""
    now, base = _counts(now), _counts(base)
    n_cells = ((now > 0) | (base > 0)).sum(-1)
    result: Floats = np.maximum(n_cells - 1, 0) * noise(now.sum(-1), base.sum(-1))
    return result


def noise(n: Counts, n0: Counts) -> Floats:
    """k = 1/n + 1/n0; infinite when one of them is empty."""
    with np.errstate(divide="ignore"):
        result: Floats = 1.0 / np.asarray(n, np.float64) + 1.0 / np.asarray(n0, np.float64)
    return result


def js_distance(now: Counts, base: Counts) -> Floats:
    """Square root of the Jensen-Shannon divergence in nats: 0 to .83. Small ones are sqrt(psi / 8)."""
    q, p = smoothed(now, base, 0.0)
    middle = (q + p) / 2
    divergence = (special.rel_entr(q, middle) + special.rel_entr(p, middle)).sum(-1) / 2
    result: Floats = np.sqrt(np.maximum(divergence, 0.0))
    return result


def ks(now: Counts, base: Counts) -> Floats:
    """Kolmogorov-Smirnov, max |Fq - Fp| over the borders of ordered cells: short of the true one by a cell at most."""
    q, p = smoothed(now, base, 0.0)
    result: Floats = np.abs(np.cumsum(q - p, -1)).max(-1)
    return result


def wasserstein(now: Counts, base: Counts, edges: Counts) -> Floats:
    """How far mass has to move, in the column's unit. Cells are below, bins, above; a bin's mass is in its middle, the
    outer mass at the outer edges, so that one huge value weighs no more than one row. To compare, divide by the iqr.
    """
    q, p = smoothed(now, base, 0.0)
    edges = np.asarray(edges, np.float64)
    places = np.concatenate([edges[:1], (edges[1:] + edges[:-1]) / 2, edges[-1:]])
    result: Floats = (np.abs(np.cumsum(q - p, -1))[..., :-1] * np.diff(places)).sum(-1)
    return result


def chi_square(now: Counts, base: Counts) -> Floats:
    """Pearson's statistic for two samples, sum (q - p)^2 / (k (now + base) / (n + n0)). Degrees of freedom: B - 1."""
    now, base = _counts(now), _counts(base)
    n, n0 = now.sum(-1, keepdims=True), base.sum(-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (now + base) / (n + n0) * noise(n, n0)
        terms = np.where(now + base > 0, (now / n - base / n0) ** 2 / pooled, 0.0)
    result: Floats = np.nan_to_num(terms.sum(-1))
    return result


def chi_square_p(now: Counts, base: Counts, tolerance: float = 0.0) -> Floats:
    """P(a chi-square as large | the populations are `tolerance` apart in psi): 0 tests equality, which at scale is
    never true (Potgieter et al. 2023: noncentral with tolerance / k). Wants 5 rows expected in each cell: `coarsen`.
    """
    now, base = _counts(now), _counts(base)
    statistic = chi_square(now, base)
    freedom = np.maximum(((now > 0) | (base > 0)).sum(-1) - 1, 1)
    with np.errstate(divide="ignore"):
        shift = tolerance / noise(now.sum(-1), base.sum(-1))
    tail = 1.0 - special.chndtr(statistic, freedom, shift) if tolerance else special.chdtrc(freedom, statistic)
    result: Floats = np.clip(tail, 0.0, 1.0)
    return result


def least_n(n_cells: int, distance: float = 0.1, risk: float = 0.001) -> int:
    """Rows from which chance lifts psi above `distance` with probability `risk` at most. The baseline is large."""
    return int(np.ceil(special.chdtri(max(n_cells - 1, 1), risk) / distance))


def share_bounds(hits: int, n: int, risk: float = 0.01) -> tuple[float, float]:
    """Clopper and Pearson's bounds of a share, each wrong with probability `risk` at most."""
    if n == 0:
        return 0.0, 1.0
    low = float(special.betaincinv(hits, n - hits + 1, risk)) if hits else 0.0
    high = float(special.betaincinv(hits + 1, n - hits, 1.0 - risk)) if hits < n else 1.0
    return low, high


def coarsen(base: Counts, least: float) -> npt.NDArray[np.intp]:
    """Where groups of neighbouring cells start, each with `least` rows of the baseline or more, for np.add.reduceat."""
    starts, held = [0], 0.0
    cells = _counts(base).tolist()
    for at, count in enumerate(cells):
        if held >= least and sum(cells[at:]) >= least:
            starts.append(at)
            held = 0.0
        held += count
    return np.array(starts, np.intp)


def smoothed(now: Counts, base: Counts, added: float) -> tuple[Floats, Floats]:
    """q and p. An empty side is all zeros, and so equal to nothing."""
    now, base = np.broadcast_arrays(_counts(now), _counts(base))
    extra = np.where((now > 0) | (base > 0), added, 0.0)
    shares = []
    for side in (now, base):
        total = (side + extra).sum(-1, keepdims=True)
        shares.append((side + extra) / np.where(total > 0, total, 1.0))
    return shares[0], shares[1]


def _counts(values: Any) -> Floats:
    counts: Floats = np.asarray(values, np.float64)
    if counts.ndim == 0 or counts.shape[-1] == 0:
        raise ValueError(f"counts: got shape {counts.shape}, expected one count for each of one or more cells")
    return counts
