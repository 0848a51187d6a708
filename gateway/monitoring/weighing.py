"""One window of one column against its baseline: evidence for the detector, and a score that ranks windows.

Three parts, averaged: the shape of the values, the share that is no value (NaN, missing, malformed), the share that is
strange (out of range, unseen). A request counts once, however many rows it brings: rows of one request may be alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gateway.evidence.numeric import Floats
from gateway.monitoring import tolerance
from gateway.monitoring.baseline import Allowed, Baseline, Column, Integers


class Weighed(NamedTuple):
    """Against what is tolerated, against what is major; and how far, in tolerances."""

    log_e_tolerated: Floats
    log_e_major: Floats
    score: Floats


NOTHING = Weighed(np.zeros(()), np.zeros(()), np.array(np.nan))


def weigh(column: Column, allowed: Allowed, cells: Integers, before: Integers, n_requests: int) -> Weighed:
    """`cells` of the window and of the window `before` it, of this column; the latter may be empty."""
    n = int(cells.sum())
    if n == 0 or n_requests == 0:
        return NOTHING
    per_row = min(1.0, n_requests / n)
    missing, strange = column.hits(cells)
    base_missing, base_strange = column.hits(column.base)
    log_es, scores = np.full((2, 3), np.nan), [-np.inf]
    if column.has_shape and n > missing:
        counts, earlier = column.tested(cells) * per_row, column.tested(before) * per_row
        shape = weigh_shape(counts, earlier if before.any() else None, column.p, column.n_base, allowed)
        log_es[:, 0] = shape.log_e_tolerated, shape.log_e_major
        scores.append(float(shape.score))
    parts = [(missing, n, base_missing, column.n_base)] if column.n_missing else []
    if column.strange and n > missing:
        parts.append((strange, n - missing, base_strange, column.n_base - base_missing))
    for at, (hits, total, base_hits, base_total) in enumerate(parts):
        for level in (0, 1):
            rate = allowed.rates[at][level]
            log_es[level, at + 1] = tolerance.log_e_rate(hits * per_row, total * per_row, rate)
        scores.append((hits / total - (base_hits / base_total if base_total else 0.0)) / allowed.rate)
    averages = tolerance.log_average(log_es)
    return Weighed(averages[0], averages[1], np.array(max(scores)))


def weigh_shape(counts: Floats, before: Floats | None, p: Floats, n_base: int, allowed: Allowed) -> Weighed:
    """The shape alone. `counts` [..., cell] in requests; the average is half over what any drift looks like, half over
    what the window before was like.
    """
    log_es = [tolerance.log_e_shape(counts, ratios) for ratios in allowed.ratios]
    if before is not None:
        suggested = tolerance.from_window(before, p)
        for level, ball in enumerate(allowed.balls):
            learnt = (counts * tolerance.log_ratios(suggested, p, ball)).sum(-1)
            log_es[level] = np.logaddexp(log_es[level], learnt) - np.log(2.0)
    return Weighed(log_es[0], log_es[1], shape_score(counts, p, n_base, allowed.distance))


def shape_score(counts: Floats, p: Floats, n_base: int, distance: float) -> Floats:
    """2 KL(p || q) in tolerances, less what chance gives: a psi that new mass on an empty cell cannot blow up. May be
    below 0: it is for ranking.
    """
    n = counts.sum(-1, keepdims=True)
    q = (counts + 0.5) / (n + 0.5 * p.size)
    apart = 2.0 * (p * np.log(p / q)).sum(-1)
    chance = (p.size - 1) * (1.0 / np.maximum(n[..., 0], 1e-9) + 1.0 / max(n_base, 1))
    result: Floats = (apart - chance) / distance
    return result


def requests_of(baseline: Baseline, cells: Integers) -> tuple[int, int]:
    """Well-formed requests and violations, from the vector of a window."""
    violations, well_formed = cells[baseline.columns[-1].cells].tolist()
    return well_formed, violations
