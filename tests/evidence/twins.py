"""Slow twins of the formulas, from their definitions, in exact or 50-digit arithmetic; and enumeration."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mpmath as mp

mp.mp.dps = 50


def beta_binomial(s: Any, n: Any, q: Any, c: Any) -> Any:
    """ln Beta(cq+S, c(1-q)+n-S) - ln Beta(cq, c(1-q)) - S ln q - (n-S) ln(1-q), as it is written."""
    q, c = mp.mpf(q), mp.mpf(c)
    a, b = c * q, c * (1 - q)

    def ln_beta(x: Any, y: Any) -> Any:
        return mp.loggamma(x) + mp.loggamma(y) - mp.loggamma(x + y)

    return ln_beta(a + s, b + n - s) - ln_beta(a, b) - s * mp.log(q) - (n - s) * mp.log(1 - q)


def beta_binomial_above(s: int, n: int, q: float, c: float) -> Any:
    """ln of the mixture of likelihood ratios over Beta(cq, c(1-q)) restricted to p > q: by quadrature; c(1-q) >= 1."""
    q_, c_ = mp.mpf(q), mp.mpf(c)
    a, b = c_ * q_, c_ * (1 - q_)

    def prior(p: Any) -> Any:
        return p ** (a - 1) * (1 - p) ** (b - 1)

    def ratio(p: Any) -> Any:
        return (p / q_) ** s * ((1 - p) / (1 - q_)) ** (n - s)

    def integral(f: Callable[[Any], Any]) -> Any:
        cuts = {q_, mp.mpf(1)}
        for trials, start, n_steps in ((c_, q_, 40), (n + c_, max(q_, (c_ * q_ + s) / (c_ + n)), 30)):
            spread = mp.sqrt(q_ * (1 - q_) / (trials + 1))
            cuts |= {x for k in range(-8, n_steps) if q_ < (x := start + k * spread / 2) < 1}
        return mp.quad(f, sorted(cuts))

    with mp.workdps(25):
        return mp.log(integral(lambda p: prior(p) * ratio(p)) / integral(prior))


def label(stages: Sequence[tuple[float, int, int]], r0: float, above: bool) -> Any:
    """ln E of the label test without restarts; stages are (pi, n events, k candidate's)."""
    most = mp.log(32) if above else mp.log(8)
    least = mp.log("1.05")
    heights = [least + (most - least) * j / 23 for j in range(24)]
    total = mp.mpf(0)
    for j in range(48):
        falling = [mp.exp(-(least + (mp.log(32) - least) * i / 23) * 3 / 4) for i in range(24)]
        weight = falling[j] / mp.fsum(falling) * 15 / 16 if j < 24 else mp.mpf(1) / 16 / 24
        height = heights[j] if j < 24 else least * mp.mpf("1.6") ** (23 - j)
        r = mp.mpf(r0) * mp.exp(height if above else -height)
        ratio = mp.mpf(1)
        for pi_, n, k in stages:
            pi = mp.mpf(pi_)
            q1, q0 = pi * r / (pi * r + 1 - pi), pi * r0 / (pi * r0 + 1 - pi)
            ratio *= (q1 / q0) ** k * ((1 - q1) / (1 - q0)) ** (n - k)
        total += weight * ratio
    return mp.log(total)


def binomial(k: int, n: int, p: float) -> float:
    return math.comb(n, k) * p**k * (1 - p) ** (n - k)


def outcomes(ns: Sequence[int], ps: Sequence[float]) -> Iterator[tuple[tuple[int, ...], float]]:
    """All vectors of independent binomial numbers, with their probabilities."""
    for ks in itertools.product(*(range(n + 1) for n in ns)):
        yield ks, math.prod(binomial(k, n, p) for k, n, p in zip(ks, ns, ps, strict=True))


def share_of_candidate(pi: float, r: float) -> float:
    return pi * r / (pi * r + 1 - pi)


def probability_of_ever(reaches: Callable[[int, int], bool], n_events: int, q: Sequence[float]) -> float:
    """P(the test fires at any look up to n_events events), event i being the candidate's with probability q[i]."""
    alive = {0: 1.0}
    fired = 0.0
    for n in range(1, n_events + 1):
        ahead: dict[int, float] = {}
        for k, mass in alive.items():
            ahead[k] = ahead.get(k, 0.0) + mass * (1 - q[n - 1])
            ahead[k + 1] = ahead.get(k + 1, 0.0) + mass * q[n - 1]
        fired += sum(mass for k, mass in ahead.items() if reaches(k, n))
        alive = {k: mass for k, mass in ahead.items() if not reaches(k, n)}
    return fired
