"""Special functions in the log domain, exact where the textbook form cancels or underflows.

Counts reach 1e12. ln Gamma(1e12) is about 2.7e13, so differences of gammaln lose five digits before the decimal point
is reached; the forms here never subtract large numbers. Every function works element by element on arrays, and an
element's bits do not depend on what else is in the array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.special as special  # type: ignore[import-untyped]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
FloatLike = float | int | Floats | npt.NDArray[np.int64]

_HALF_LN_2PI = 0.9189385332046727
_STIRLING_FROM = 16.0  # from here five terms of Stirling's series are exact to the last bit of the sum it enters
_TAIL_FROM = 1e-8  # tails smaller than this are summed by continued fraction, larger ones by SciPy
_MAX_TERMS = 400  # of the continued fraction; a tail below 1e-8 lies 5.6 deviations out, where some 40 are enough


def log_sum_exp(values: Floats, axis: int = -1) -> Floats:
    """ln sum exp(values) along an axis. -inf is a summand of 0; all -inf gives -inf; +inf gives +inf."""
    values = np.asarray(values, np.float64)
    top = np.max(values, axis=axis, keepdims=True)
    shift = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore", over="ignore"):
        total = np.log(np.sum(np.exp(values - shift), axis=axis))
    result: Floats = total + np.squeeze(shift, axis=axis)
    return result


def log_mean_exp(values: Floats, axis: int = -1) -> Floats:
    """ln of the mean of exp(values): the average of e-values, from their logarithms."""
    values = np.asarray(values, np.float64)
    result: Floats = log_sum_exp(values, axis) - np.log(values.shape[axis])
    return result


def stirling_remainder(z: FloatLike) -> Floats:
    """delta(z) = ln Gamma(z) - [(z - 1/2) ln z - z + ln(2 pi)/2], for z > 0. About 1/(12 z) when z is large.

    Source: Abramowitz & Stegun 6.1.41. Absolute error below 2e-15 for z >= 16, and a few ulp of ln Gamma(z) below.
    """
    z = np.asarray(z, np.float64)
    large = np.maximum(z, _STIRLING_FROM)
    x = 1.0 / (large * large)
    series = (1 / 12 + x * (-1 / 360 + x * (1 / 1260 + x * (-1 / 1680 + x * (1 / 1188 - x * (691 / 360360)))))) / large
    small = z < _STIRLING_FROM
    if small.any():
        low = z[small] if z.ndim else z
        exact = special.gammaln(low) - ((low - 0.5) * np.log(low) - low + _HALF_LN_2PI)
        if z.ndim:
            series[small] = exact
        else:
            series = np.asarray(exact)
    result: Floats = series
    return result


def log_beta_binomial(successes: FloatLike, n: FloatLike, q: FloatLike, c: FloatLike) -> Floats:
    """Two-sided beta-binomial log e-value against "each of n trials succeeds with probability q, whatever the past".

    ln Beta(cq + S, c(1-q) + n - S) - ln Beta(cq, c(1-q)) - S ln q - (n - S) ln(1 - q)

    S: successes. q: null probability, 0 < q < 1. c > 0: weight of the prior, in trials.
    Source: Robbins 1970; Howard, Ramdas, McAuliffe & Sekhon 2021, beta-binomial mixture with r = c q(1-q).
    Guarantee: exp of it is a non-negative martingale with mean 1 in n under the null, so an e-process.

    With A = cq + S, B = c(1-q) + n - S, M = c + n, d = S - nq and psi(t) = (1+t) ln(1+t) - t, Stirling's formula turns
    it, without approximation, into
        M q psi(d / (M q)) + M (1-q) psi(-d / (M (1-q))) + ln(M c q (1-q) / (A B)) / 2
        + delta(A) + delta(B) - delta(M) - delta(cq) - delta(c(1-q)) + delta(c)
    in which nothing large cancels: the error is about 1e-16 |d|, where the definition has 1e-16 n ln n.
    """
    s, n, q, c = (_wide(value) for value in (successes, n, q, c))
    p = 1.0 - q
    prior_a, prior_b = c * q, c * p
    total = c + n
    d = s - n * q
    a, b = prior_a + s, prior_b + (n - s)
    centre_a, centre_b = total * q, total * p
    main = centre_a * _psi(a, d, centre_a) + centre_b * _psi(b, -d, centre_b)
    half = 0.5 * (np.log(prior_a / a) + np.log(prior_b / b) + np.log(total / c))
    rest = stirling_remainder(a) + stirling_remainder(b) - stirling_remainder(total)
    rest_prior = stirling_remainder(prior_a) + stirling_remainder(prior_b) - stirling_remainder(c)
    result: Floats = main + half + (rest - rest_prior)
    return result


def _psi(value: Floats, difference: Floats, centre: Floats) -> Floats:
    """(1+t) ln(1+t) - t for t = difference / centre; 1+t = value / centre is given, so that t near -1 loses nothing."""
    t = difference / centre
    result: Floats = (value / centre) * np.where(t > -0.5, np.log1p(np.maximum(t, -0.5)), np.log(value / centre)) - t
    return result


def log_beta_binomial_above(successes: FloatLike, n: FloatLike, q: FloatLike, c: FloatLike) -> Floats:
    """One-sided beta-binomial log e-value against "each trial succeeds with probability at most q, given the past".

    log_beta_binomial + ln[1 - I_q(cq + S, c(1-q) + n - S)] - ln[1 - I_q(cq, c(1-q))],   I: incomplete beta function

    It is the mixture of the likelihood ratios p : q over Beta(cq, c(1-q)) restricted to p > q. Each ratio has mean at
    most 1 when the true probability is q or less, so the mixture is an e-process under the whole composite null.
    Source: Howard et al. 2021, one-sided beta-binomial mixture. For "at least q", pass n - S and 1 - q.

    When S lies far below nq the tail underflows and the first term overflows; then, with the continued fraction F of
    1 - I_q(A, B) = q^A (1-q)^B F / (B Beta(A, B)) (NIST DLMF 8.17.22), all that is large cancels on paper:
        cq ln q + c(1-q) ln(1-q) - ln Beta(cq, c(1-q)) - ln B + ln F - ln[1 - I_q(cq, c(1-q))]
    """
    s, n, q, c = (_wide(value) for value in np.broadcast_arrays(successes, n, q, c))
    p = 1.0 - q
    prior_a, prior_b = c * q, c * p
    a, b = prior_a + s, prior_b + (n - s)
    prior_tail = np.log(special.betaincc(prior_a, prior_b, q))
    tail = np.asarray(special.betaincc(a, b, q))
    far = tail < _TAIL_FROM
    near_log: Floats = log_beta_binomial(s, n, q, c) + np.log(np.where(far, 1.0, tail)) - prior_tail
    if not far.any():
        return near_log
    log_prior_density = -(
        0.5 * np.log(c / (prior_a * prior_b))
        + _HALF_LN_2PI
        + stirling_remainder(prior_a)
        + stirling_remainder(prior_b)
        - stirling_remainder(c)
    )
    # outside `far` the arguments are replaced by some for which the fraction is trivially short
    fraction = _tail_fraction(np.where(far, p, 0.25), np.where(far, b, 1.0), np.where(far, a, 1.0))
    far_log = log_prior_density - np.log(b) + np.log(fraction) - prior_tail
    result: Floats = np.where(far, far_log, near_log)
    return result


def log_beta_binomial_below(successes: FloatLike, n: FloatLike, q: FloatLike, c: FloatLike) -> Floats:
    """One-sided beta-binomial log e-value against "each trial succeeds with probability at least q, given the past"."""
    trials: Floats = np.asarray(n, np.float64)
    failures: Floats = trials - np.asarray(successes, np.float64)
    opposite: Floats = 1.0 - np.asarray(q, np.float64)
    return log_beta_binomial_above(failures, trials, opposite, c)


def _tail_fraction(x: Floats, a: Floats, b: Floats) -> Floats:
    """F in I_x(a, b) = x^a (1-x)^b F / (a Beta(a, b)), for x below the mean a/(a+b). Lentz's algorithm."""
    c = np.ones(np.broadcast_shapes(x.shape, a.shape, b.shape))
    d = 1.0 / _away_from_zero(1.0 - (a + b) * x / (a + 1.0) * c)
    f = d
    going = np.ones(c.shape, bool)
    for m in range(1, _MAX_TERMS):
        before = f
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away_from_zero(1.0 + term * d)
            c = _away_from_zero(1.0 + term / c)
            # an element that is done stays as it is, however long its neighbours take
            f = np.where(going, f * (c * d), f)
        going = going & (np.abs(f - before) > 1e-16 * np.abs(f))
        if not going.any():
            break
    return f


def _away_from_zero(value: Floats) -> Floats:
    result: Floats = np.where(np.abs(value) < 1e-300, 1e-300, value)
    return result


def _wide(value: Any) -> Floats:
    result: Floats = np.asarray(value, np.float64)
    return result


def as_float(value: Any) -> float:
    """A zero-dimensional array as a Python float."""
    return float(np.asarray(value, np.float64).reshape(()))
