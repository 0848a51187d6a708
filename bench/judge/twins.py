"""The judge's formulas on many simulated rollouts at once. tests/evidence proves them equal to gateway.evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gateway.evidence.betting import SHARES
from gateway.evidence.likelihood import ABOVE, BELOW, FULL_WEIGHT, LOG_WEIGHTS
from gateway.evidence.mean import LEAST_VALUES, SKEW_VALUES, log_normal_mixture, mixture_precision
from gateway.evidence.numeric import log_beta_binomial, log_mean_exp, log_sum_exp

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
_CHUNK = 200_000  # e-values at a time: 48 alternatives each, some 80 MB a stage


class LabelTest:
    """`gateway.evidence.label` with the stages' probabilities fixed. Counts have the stages on the last axis."""

    def __init__(self, pis: Sequence[float], r0: float = 1.0, *, upwards: bool = True, phi: float = 1.0) -> None:
        pi = np.asarray(pis, np.float64)
        odds = pi * r0
        self.h = ABOVE if upwards else BELOW
        self.factor = np.log1p((odds / (1.0 - pi + odds))[:, None] * np.expm1(self.h))
        self.upwards, self.phi = upwards, phi
        index = np.arange(1.0, len(pi))
        self.later = math.log1p(-FULL_WEIGHT) - np.log(index) - np.log1p(index)

    def log_e(self, k: npt.ArrayLike, n: npt.ArrayLike) -> Floats:
        """ln E after n events, k of them the candidate's, by stage; shape as the input's without its last axis."""
        k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
        shape = k.shape[:-1]
        k, n = k.reshape(-1, k.shape[-1]), n.reshape(-1, n.shape[-1])
        parts = [self._log_e(k[i : i + _CHUNK], n[i : i + _CHUNK]) for i in range(0, len(k), _CHUNK)]
        return np.concatenate(parts).reshape(shape) if parts else np.zeros(shape)

    def _log_e(self, k: Floats, n: Floats) -> Floats:
        total = np.zeros((len(k), self.h.size))
        summands = []
        for stage in range(k.shape[1] - 1, -1, -1):
            total = total + (k[:, stage, None] * self.h - n[:, stage, None] * self.factor[stage]) / self.phi
            if stage and self.upwards:
                tells = (n[:, stage] > 0) & (n[:, :stage].sum(axis=1) > 0)
                by_start = log_sum_exp(total + LOG_WEIGHTS) + self.later[stage - 1]
                summands.append(np.where(tells, by_start, -np.inf))
        summands.append(log_sum_exp(total + LOG_WEIGHTS) + (math.log(FULL_WEIGHT) if self.upwards else 0.0))
        return log_sum_exp(np.stack(summands, axis=-1))

    def boundary(self, n_events: int, log_threshold: float) -> Ints:
        """For n = 0 .. n_events in one stage: the least k that reaches the threshold, or, downwards, the largest.

        n + 1, and -1, where none does. The evidence rises (falls) with k, so a comparison of integers is the test.
        """
        n = np.arange(n_events + 1)
        low, high = np.full(n_events + 1, -1), n + 1  # upwards: low fails, high passes, and the reverse
        while (high - low > 1).any():
            middle = (low + high) // 2
            reached = self.log_e(middle[:, None], n[:, None]) >= log_threshold
            goes_high = reached if self.upwards else ~reached
            is_open = high - low > 1
            high, low = np.where(is_open & goes_high, middle, high), np.where(is_open & ~goes_high, middle, low)
        return high if self.upwards else low


@lru_cache
def label_boundary(pi: float, r0: float, upwards: bool, n_events: int, log_threshold: float, phi: float = 1.0) -> Ints:
    """`LabelTest.boundary` of one stage, computed once."""
    return LabelTest([pi], r0, upwards=upwards, phi=phi).boundary(n_events, log_threshold)


@lru_cache
def bet_tables(pi: float, centre: float, levels: int, drop: float) -> Floats:
    """Gain in ln of every bet for one request: (2 arms, stable first, levels + 1, bets). See `betting`."""
    y = np.arange(levels + 1) / levels
    below = max((1.0 - centre) / pi, centre / (1.0 - pi))
    x = np.stack([(y - centre) / (1.0 - pi), -(y - centre) / pi])
    result: Floats = np.log1p(SHARES * ((x - drop) / (below + drop))[:, :, None])
    return result


def betting_log_e(counts: Floats, pi: float, centre: float, drop: float) -> Floats:
    """`betting.log_e` for a drop; counts (..., 2 arms, levels + 1) of one stage."""
    tables = bet_tables(pi, centre, counts.shape[-1] - 1, drop)
    flat = counts.reshape(*counts.shape[:-2], -1) @ tables.reshape(-1, SHARES.size)
    return log_mean_exp(flat)


def mean_log_e(
    n: Floats, total: Floats, squares: Floats, log_threshold: float, planned: float, skewness: float
) -> Floats:
    """`mean.log_e_with_restarts` for a rise, one stage; arrays (..., 2 arms, stable first); 0 before the burn-in."""
    with np.errstate(all="ignore"):
        variance = (squares - total * total / n) / (n * (n - 1.0))
        pairs = n.prod(axis=-1) / n.sum(axis=-1)
        s = (total[..., 1] * n[..., 0] - total[..., 0] * n[..., 1]) / n.sum(axis=-1)
        q = pairs * pairs * variance.sum(axis=-1)
        log_e = log_normal_mixture(s, q, mixture_precision(log_threshold, planned)) + math.log(FULL_WEIGHT)
    imbalance = n[..., 0] - n[..., 1]
    strength = max(log_threshold / math.log(20.0), 1.0)
    enough = SKEW_VALUES * strength * (skewness * imbalance) ** 2 <= n.prod(axis=-1) * n.sum(axis=-1)
    ready = (n.min(axis=-1) >= LEAST_VALUES) & (enough | (skewness * imbalance >= 0.0))
    return np.where(ready & (variance.min(axis=-1) > 0.0), log_e, 0.0)


def distribution_log_e(candidate: Floats, both: Floats, pi: float) -> Floats:
    """`distribution.log_e_equal` for one stage; arrays (..., bins)."""
    c = np.array([10.0, 100.0, 1000.0])[:, None]
    of_bins = log_beta_binomial(candidate[..., None, :], both[..., None, :], pi, c).sum(axis=-1)
    left_k, left_n = np.cumsum(candidate, axis=-1)[..., :-1], np.cumsum(both, axis=-1)[..., :-1]
    right_k, right_n = candidate.sum(axis=-1, keepdims=True) - left_k, both.sum(axis=-1, keepdims=True) - left_n
    of_edges = log_beta_binomial(left_k[..., None, :], left_n[..., None, :], pi, c)
    of_edges = of_edges + log_beta_binomial(right_k[..., None, :], right_n[..., None, :], pi, c)
    edges = log_mean_exp(of_edges.reshape(*of_edges.shape[:-2], -1))
    return log_mean_exp(np.stack([log_mean_exp(of_bins), edges], axis=-1)) + math.log(FULL_WEIGHT)


def gap_log_e(n: Floats, k: Floats, tolerance: float, log_threshold: float, least: int, least_events: int) -> Floats:
    """`fairness.log_e_gap_above` of one stratum; arrays (..., 2 groups)."""
    with np.errstate(all="ignore"):
        p = k / n
        pairs = n.prod(axis=-1) / n.sum(axis=-1)
        q = pairs * pairs * (p * (1.0 - p) / (n - 1.0)).sum(axis=-1)
        apart = pairs * (p[..., 0] - p[..., 1])
        rho = mixture_precision(log_threshold, 80.0)
        sides = [log_normal_mixture(sign * apart - tolerance * pairs, q, rho) for sign in (1.0, -1.0)]
    ready = (n.min(axis=-1) >= least) & (np.minimum(k, n - k).min(axis=-1) >= least_events)
    return np.where(ready, log_mean_exp(np.stack(sides, axis=-1)), 0.0)
