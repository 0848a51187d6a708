"""E-values against "each request of this window comes from a distribution no further from the baseline than tolerated".

Exact at any n, with any number of cells, empty ones too: no approximation that fails in the far tail which a rare alarm
needs. The tolerated distributions are the ball KL(p || q) <= radius around the baseline p. For small distances that is
half a psi; mass on cells that p never saw costs only what it takes away from the others. For an alternative a let

    q* = (1 - w) a + w p   with the w in [0, 1] that puts it on the ball's border (w = 0 when a is inside)

the nearest to a in the ball by KL(a || q): the stationary point of sum a ln q + l sum p ln q. The ball is convex, so
sum_b q_b a_b / q*_b <= 1 for every q in it (reverse information projection: Li 1999; Gruenwald, de Heide & Koolen
2024), and prod_b (a_b / q*_b)^c_b is an e-value, whichever q of the ball each request is drawn from. Averages over
alternatives are e-values too. A request's rows may hang together as they like: with c the mean cell shares of requests
that are alike in size, its factor is a geometric mean over its rows, at most the arithmetic one (Jensen).
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.special as special  # type: ignore[import-untyped]

from gateway.evidence.numeric import FloatLike, Floats, log_beta_binomial_above, log_mean_exp, log_sum_exp

SHIFTS = (-4.0, -2.0, -1.4, -1.0, -0.7, -0.5, -0.35, 0.0, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
STRETCHES = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0, 4.0)
"""Alternatives of ordered cells, in deviations of the baseline's normal scores: a mean moves, a spread changes."""
SURGES = (-1.0, 0.1, 0.2, 0.4, 0.8)
"""Alternatives of unordered cells, for each: it vanishes, or takes that share of all."""
RATE_WEIGHT = 20.0
"""Of the prior above a tolerated rate, in requests."""
PRIOR_WEIGHT = 10.0
"""Requests of the baseline added to a window before it serves as alternative for the next."""
LEAST_SHARE = 1e-6
"""Of every cell of an alternative: no single row can end the evidence."""
_HALVINGS = 34  # of the interval that w lies in; the end inside the ball is taken


def radius(psi: FloatLike, n_cells: FloatLike, n0: FloatLike, z: float = 2.33) -> Floats:
    """Radius of the ball for a tolerated psi, wider by what the baseline may itself be off with its n0 rows.

    (sqrt(psi / 2) + sqrt(u / (2 n0)))^2 with u the 99 % quantile of chi-square with B - 1 degrees of freedom
    (Wilson and Hilferty): roots of KL add up nearly like distances.
    """
    freedom = np.maximum(np.asarray(n_cells, np.float64) - 1.0, 1.0)
    part = 2.0 / (9.0 * freedom)
    quantile = freedom * (1.0 - part + z * np.sqrt(part)) ** 3
    own = np.sqrt(quantile / (2.0 * np.maximum(np.asarray(n0, np.float64), 1.0)))
    result: Floats = (np.sqrt(np.asarray(psi, np.float64) / 2.0) + own) ** 2
    return result


def moves(p: Floats) -> Floats:
    """Alternatives for ordered cells, [alternative, cell]: the baseline's normal scores moved and stretched."""
    borders = np.concatenate([[-np.inf], special.ndtri(np.clip(np.cumsum(p)[:-1], 1e-12, 1 - 1e-12)), [np.inf]])
    pairs = [pair for pair in itertools.product(SHIFTS, STRETCHES) if pair != (0.0, 1.0)]
    return _possible(np.array([np.diff(special.ndtr((borders - shift) / stretch)) for shift, stretch in pairs]))


def surges(p: Floats) -> Floats:
    """Alternatives for unordered cells, [alternative, cell]: one cell vanishes, or takes a share from all others."""
    one = np.eye(p.size)
    gone = p * (1.0 - one) / np.maximum(1.0 - p[:, None], LEAST_SHARE)
    return _possible(np.concatenate([gone if s < 0 else (1.0 - s) * p + s * one for s in SURGES]))


def from_window(counts: Floats, p: Floats) -> Floats:
    """The alternative that an earlier window suggests: it was known before the next one came."""
    total = counts.sum(-1, keepdims=True) + PRIOR_WEIGHT
    return _possible((counts + PRIOR_WEIGHT * p) / total)


def log_ratios(alternative: Floats, p: Floats, ball: FloatLike) -> Floats:
    """ln(a / q*) by cell, [..., cell]; 0 for alternatives inside the ball. All of p above 0."""
    limit = np.asarray(ball, np.float64)
    low, high = np.zeros(alternative.shape[:-1]), np.ones(alternative.shape[:-1])
    inside = (p * np.log(p / alternative)).sum(-1) <= limit
    for _ in range(_HALVINGS):
        w = (low + high) / 2
        q = alternative + w[..., None] * (p - alternative)
        outside = (p * np.log(p / q)).sum(-1) > limit
        low, high = np.where(outside, w, low), np.where(outside, high, w)
    w = np.where(inside, 0.0, high)
    result: Floats = np.log(alternative / (alternative + w[..., None] * (p - alternative)))
    return result


def log_e_shape(counts: Floats, ratios: Floats) -> Floats:
    """ln of the average e over alternatives. `counts` [..., cell] in requests, fractions allowed; `ratios` as above."""
    return log_mean_exp(counts @ ratios.T)


def log_e_rate(hits: FloatLike, n: FloatLike, tolerated: FloatLike) -> Floats:
    """ln e against "each request has at most the share `tolerated`": of NaN, out of range, unseen category."""
    limit = np.clip(tolerated, 1e-9, 1 - 1e-9)
    log_e = log_beta_binomial_above(np.minimum(hits, n), n, limit, RATE_WEIGHT)
    result: Floats = np.where(np.asarray(n) > 0, log_e, 0.0)
    return result


def log_average(log_es: Floats) -> Floats:
    """ln of the mean of e-values on the last axis, leaving out NaN, which is a part that a column has not."""
    known = ~np.isnan(log_es)
    total = log_sum_exp(np.where(known, log_es, -np.inf))
    result: Floats = np.where(known.any(-1), total - np.log(np.maximum(known.sum(-1), 1)), 0.0)
    return result


def _possible(shares: Floats) -> Floats:
    mixed = np.maximum(shares, 0.0) + LEAST_SHARE
    result: Floats = mixed / mixed.sum(-1, keepdims=True)
    return result
