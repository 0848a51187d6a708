"""Is a share above or below a limit? The exact test of a Bernoulli probability, one-sided, at any look.

For what has a limit of its own rather than a comparison: disagreement of shadow pairs, a candidate's error budget,
missing values. `c` is the weight of the prior in trials: about N/8 finds a small excess best after N trials.

Source: Howard, Ramdas, McAuliffe & Sekhon 2021 (one-sided beta-binomial mixture).
Guarantee: exact if each trial succeeds with probability at most (at least) the limit, given all trials before it.
"""

from __future__ import annotations

import math

from gateway.evidence.counts import MAX_COUNT, CountError
from gateway.evidence.numeric import as_float, log_beta_binomial_above, log_beta_binomial_below, stirling_remainder

EVENTS_WANTED = 4.0  # default c puts this many expected events in the prior: a doubling is found within some 20 of them
_STEPS = 24  # halvings in the search for the ends of an interval


def prior_weight(limit: float) -> float:
    """Default c for a limit: EVENTS_WANTED / min(limit, 1 - limit) trials, so the prior spreads by half the limit."""
    return EVENTS_WANTED / min(limit, 1.0 - limit)


def log_e_above(k: float, n: float, limit: float, c: float | None = None) -> float:
    """ln e-value against H0 "the share is at most `limit`", after k of n trials. See `numeric` for the formula."""
    _check(k, n, limit)
    return as_float(log_beta_binomial_above(k, n, limit, prior_weight(limit) if c is None else c))


def log_e_below(k: float, n: float, limit: float, c: float | None = None) -> float:
    """ln e-value against H0 "the share is at least `limit`", after k of n trials."""
    _check(k, n, limit)
    return as_float(log_beta_binomial_below(k, n, limit, prior_weight(limit) if c is None else c))


def interval(k: int, n: int, log_threshold: float) -> tuple[float, float]:
    """Confidence sequence of a share after k of n trials: (low, high).

    All p with  ln Beta(1/2 + k, 1/2 + n - k) - ln Beta(1/2, 1/2) - k ln p - (n - k) ln(1 - p) < log_threshold.
    Source: Robbins 1970 with Jeffreys' prior; the left side is convex in p, so these p are an interval.
    Guarantee: contains the share at all times with probability at least 1 - exp(-log_threshold), if it is constant.
    """
    _check(k, n, 0.5)
    if n == 0:
        return 0.0, 1.0
    share = k / n
    # The left side is n KL(k/n, p) + regret. By Stirling's formula, exactly, with d = delta of `numeric`:
    # regret = ln(2/(pi (n+1))) / 2 - n KL(k/n, (k+1/2)/(n+1)) + d(k+1/2) + d(n-k+1/2) - d(n+1)
    deltas = [as_float(stirling_remainder(z)) for z in (k + 0.5, n - k + 0.5, n + 1.0)]
    shrunk = (0.5 * n - k) / (n * (n + 1.0))
    regret = 0.5 * math.log(2.0 / (math.pi * (n + 1.0))) - _divergence(k, n, shrunk) + deltas[0] + deltas[1] - deltas[2]
    allowed = log_threshold - regret
    return share - _distance(k, n, allowed, -1.0, share), share + _distance(k, n, allowed, 1.0, 1.0 - share)


def _divergence(k: int, n: int, difference: float) -> float:
    """n KL(k/n, k/n + difference)."""
    hits = -k * math.log1p(difference * n / k) if k else 0.0
    misses = -(n - k) * math.log1p(-difference * n / (n - k)) if k < n else 0.0
    return hits + misses


def _distance(k: int, n: int, allowed: float, side: float, most: float) -> float:
    """How far p may go to one side: the distance at which the divergence reaches `allowed`, rounded outwards."""
    # the divergence is about n d^2 / (2 p (1-p)), and n d at most when p is next to nothing: start some times that far
    near, far = 0.0, most
    guess = 4.0 * (math.sqrt(2.0 * allowed * max(k, 1) * max(n - k, 1) / n) + allowed) / n
    if guess < most and _divergence(k, n, side * guess) >= allowed:
        far = guess
    for _ in range(_STEPS):
        middle = 0.5 * (near + far)
        if middle >= most or _divergence(k, n, side * middle) >= allowed:
            far = middle
        else:
            near = middle
    return far


def _check(k: float, n: float, limit: float) -> None:
    # fractions are counts divided by the size of bursts
    if not 0.0 <= n <= MAX_COUNT:
        raise CountError("n", n, f"a count from 0 to {MAX_COUNT}")
    if not 0.0 <= k <= n:
        raise CountError("k", k, f"a count from 0 to n = {n}")
    if not 0.0 < limit < 1.0:
        raise CountError("limit", limit, "a share between 0 and 1, both excluded")
