"""A mean without bounds (latency, revenue, tokens), candidate against stable: approximate, for what has no exact test.

Prefer `latency` (exact, by thresholds) or `betting` (exact, for what can be clipped); this one is for effects on a mean
that these are too slow to find. Never pooled over a ramp: in each stage j the arms are compared with each other only,
    h_j = n_c n_s / (n_c + n_s),    S = sum_j h_j (mean_c - mean_s - d),    Q = sum_j h_j^2 (var_c / n_c + var_s / n_s)
so a rush hour that begins with a new stage cancels. Under H0, S is close to a Brownian motion run for the time Q, and
    ln E = ln 2 + ln(rho/(Q + rho))/2 + S^2/(2 (Q + rho)) + ln Phi(S / sqrt(Q + rho))
is the mixture of the likelihood ratios of its drifts over a half-normal law with variance 1/rho. rho makes it tightest
at a planned amount of data. Sources: Robbins 1970; Howard et al. 2021; Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas,
arXiv 2103.06476 (asymptotic confidence sequences). With one stage it is their radius for the difference of two means.
The weights h_j depend on the numbers of requests only: with weights from the estimated variances (1/V_j) a skewed
metric is biased at each stage anew, since a low mean then comes with a low variance.

Guarantee: asymptotic. The false-alarm rate is at most the nominal one as the burn-in grows; a stage counts
once it `is_burnt_in`. Tables of simulated rates: bench/judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special as special  # type: ignore[import-untyped]

from gateway.evidence import difference
from gateway.evidence.counts import CountError, count, merge
from gateway.evidence.numeric import Floats
from gateway.evidence.restarts import Mixture, mix
from gateway.evidence.verdict import Direction, Verdict

LEAST_VALUES = 300  # on each arm: below it even a variance without skewness is too uncertain for the tails used here
SKEW_VALUES = 25.0  # values of the smaller arm for each unit of skewness squared, at a threshold of ln 20
PLANNED_VALUES = 500.0  # h at which the test is tightest, by default: 5,000 requests at 10 %, 2,000 at 50 %


@dataclass(frozen=True, slots=True)
class Moments:
    """Values of one arm as integers: z = round((value - centre) / unit), see `Metric.quantise`."""

    n: int
    total: int = 0  # sum of z, of any sign
    squares: int = 0  # sum of z^2

    def __post_init__(self) -> None:
        n = count("n", self.n)
        total, squares = int(self.total), int(self.squares)
        for field, value in (("n", n), ("total", total), ("squares", squares)):
            if value != getattr(self, field):
                raise CountError(field, getattr(self, field), "a whole number")
            object.__setattr__(self, field, value)
        if total * total > n * squares or (n == 0 and squares):
            raise CountError("squares", squares, f"at least total^2 / n = {total}^2 / {n}")

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.n + other.n, self.total + other.total, self.squares + other.squares)

    @property
    def variance_of_mean(self) -> float:
        """(n sum z^2 - (sum z)^2) / (n^2 (n - 1)), in units of z squared: exact integers until the one division."""
        return (self.n * self.squares - self.total * self.total) / (self.n * self.n * (self.n - 1))


@dataclass(frozen=True, slots=True)
class MomentStage:
    """Values of both arms in one stage of a rollout."""

    index: int
    stable: Moments
    candidate: Moments

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", count("index", self.index))

    def __add__(self, other: MomentStage) -> MomentStage:
        """What two workers counted in the same stage."""
        if other.index != self.index:
            raise CountError("index", other.index, f"{self.index}: only counts of the same stage add up")
        return MomentStage(self.index, self.stable + other.stable, self.candidate + other.candidate)

    @property
    def n(self) -> int:
        """Values of both arms."""
        return self.stable.n + self.candidate.n

    @property
    def pairs(self) -> float:
        """h = n_c n_s / (n_c + n_s): a comparison is as precise as one with h values against a known mean."""
        return self.stable.n * self.candidate.n / (self.stable.n + self.candidate.n)

    @property
    def weighed_difference(self) -> float:
        """h (mean_c - mean_s), in units of z: exact integers until the one division."""
        s, c = self.stable, self.candidate
        return (c.total * s.n - s.total * c.n) / (s.n + c.n)

    def as_row(self) -> tuple[int, int, int, int, int, int, int]:
        """For `Verdict.counts`: index, then n, total, squares of stable and of the candidate."""
        s, c = self.stable, self.candidate
        return (self.index, s.n, s.total, s.squares, c.n, c.total, c.squares)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric without natural bounds, with what is known of it from the baseline; fixed before the rollout starts."""

    centre: float  # the baseline's mean, in the metric's units: keeps the integers small
    unit: float  # one step of z; a thousandth of the deviation or less
    deviation: float  # the baseline's standard deviation, in the metric's units; a bad one costs speed only
    skewness: float  # the baseline's, after clipping
    low: float = -math.inf  # values are clipped to low..high: one freak must not decide
    high: float = math.inf
    is_higher_better: bool = False
    name: str = "mean"
    planned_pairs: float = PLANNED_VALUES  # h at which the test is to be tightest

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low, high: got {self.low!r}, {self.high!r}, expected low < high")
        for field in ("centre", "skewness"):
            if not math.isfinite(getattr(self, field)):
                raise ValueError(f"{field}: got {getattr(self, field)!r}, expected a finite number")
        for field in ("unit", "deviation", "planned_pairs"):
            if not 0.0 < getattr(self, field) < math.inf:
                raise ValueError(f"{field}: got {getattr(self, field)!r}, expected a finite number above 0")

    def quantise(self, value: float) -> int:
        """z of a value: round((clipped value - centre) / unit), halves to even. NaN and infinity are refused."""
        clipped = min(max(value, self.low), self.high)
        if not math.isfinite(clipped):
            raise ValueError(f"value: got {value!r}, expected a finite number; count others as an event of their own")
        return round((clipped - self.centre) / self.unit)


def is_burnt_in(n_stable: int, n_candidate: int, log_threshold: float, skewness: float, toward: int) -> bool:
    """Whether a stage has enough values for a test "the candidate's mean is higher" (toward 1) or "lower" (-1).

    Both arms have 300 values, and the skewness of the difference of means, g (n_s - n_c) / sqrt(n_s n_c (n_s + n_c))
    with g the metric's, either points to the safe side or is at most sqrt(ln 20 / (25 T)), T = max(log_threshold,
    ln 20). With few values a skewed mean that is low comes with a variance that is low: the test then sees too much in
    the direction of the thin tail of the smaller arm, and too little in the other. The normal approximation must hold
    out to z = sqrt(2 T) deviations, with relative error skewness z^3 / (6 sqrt n) (Edgeworth), so n grows with T.
    toward 0 asks for both directions, as an interval needs.

    Heuristic, set by simulation: lognormal values (sigma 1, g = 6.2), pi = 0.1, one look after every 25 requests,
    "lower": from 300 candidate values on, the false-alarm rates at .05, .01 and .001 are .063, .020 and .0037; from
    1,000 on .034, .010 and .0012. "Higher" is safe from 300 on.
    """
    if min(n_stable, n_candidate) < LEAST_VALUES:
        return False
    imbalance = n_stable - n_candidate
    if toward and toward * skewness * imbalance >= 0.0:
        return True
    strength = max(log_threshold / math.log(20.0), 1.0)
    needed = SKEW_VALUES * strength * (skewness * imbalance) ** 2
    return needed <= n_stable * n_candidate * (n_stable + n_candidate)


def mixture_precision(log_threshold: float, planned: float) -> float:
    """rho that makes a one-sided normal mixture tightest when its time Q is `planned`, in the units of Q.

    planned / (-W(-a^2 / e) - 1), a = min(2 exp(-log_threshold), 1/2), W: lower branch of Lambert's function; close to
    planned / (2 ln(1/a) + ln(1 + 2 ln(1/a))). Source: Howard et al. 2021, proposition 3.
    """
    a = min(2.0 * math.exp(-log_threshold), 0.5)
    log_a = math.log(a) if a > 1e-150 else math.log(2.0) - log_threshold
    if log_a < -300.0:
        return planned / (-2.0 * log_a + math.log1p(-2.0 * log_a))
    return planned / float(-special.lambertw(-math.exp(2.0 * log_a - 1.0), -1).real - 1.0)


def log_normal_mixture(s: Floats, q: Floats, rho: float) -> Floats:
    """One-sided normal mixture: ln 2 + ln(rho/(q+rho))/2 + s^2/(2(q+rho)) + ln Phi(s / sqrt(q+rho)).

    = ln of the integral over t > 0 of exp(t s - t^2 q/2) with t half-normal of variance 1/rho. Element by element.
    Guarantee: exp of it is an e-process for H0 "drift at most 0" if s is a Brownian motion, or has normal steps, with
    variance q; for means see the module.
    """
    z = s / np.sqrt(q + rho)
    # z^2/2 + ln Phi(z) far below 0 is a difference of large numbers; erfcx is their exact sum
    bulk = np.where(z < 0.0, np.log(special.erfcx(-np.minimum(z, 0.0) / math.sqrt(2.0)) / 2.0), 0.0)
    tail = np.where(z < 0.0, bulk, 0.5 * z * z + special.log_ndtr(np.maximum(z, 0.0)))
    result: Floats = math.log(2.0) + 0.5 * np.log(rho / (q + rho)) + tail
    return result


def rollback(stages: Sequence[MomentStage], metric: Metric, log_threshold: float, *, tolerated: float = 0.0) -> Verdict:
    """WORSE when the evidence against "the candidate's mean is worse by at most `tolerated`" reaches the threshold.

    `tolerated` >= 0, in the metric's units. Evidence from each later stage on is mixed in (see `restarts`).
    Guarantee: asymptotic, see the module.
    """
    return _judge(stages, metric, log_threshold, Direction.ROLLBACK, tolerated)


def promote(stages: Sequence[MomentStage], metric: Metric, log_threshold: float, *, margin: float) -> Verdict:
    """OK when the evidence against "the candidate's mean is worse by `margin` or more" reaches the threshold.

    `margin` > 0, in the metric's units. No restarts. Guarantee: asymptotic, see the module.
    """
    return _judge(stages, metric, log_threshold, Direction.PROMOTE, margin)


def interval(stages: Sequence[MomentStage], metric: Metric, log_threshold: float) -> tuple[float, float] | None:
    """Confidence sequence of (candidate's mean - stable's), in the metric's units; None before the burn-in.

    (S +- sqrt((Q + rho) (ln(1 + Q/rho) + 2 (log_threshold - ln 2)))) / H,  S at d = 0,  H = sum_j h_j.
    Guarantee: asymptotic; both ends together are wrong at any time with probability at most 2 exp(-log_threshold).
    """
    return _Sums.of(merge(stages), metric, log_threshold, 0).interval(log_threshold)


def log_e_with_restarts(
    stages: Sequence[MomentStage], metric: Metric, log_threshold: float, limit: float, direction: Direction
) -> Mixture:
    """ln e-value that a verdict rests on. The threshold enters through rho and the burn-in, so fix it beforehand."""
    sums = _Sums.of(merge(stages), metric, log_threshold, _toward(metric, direction))
    return sums.log_e(metric, limit, direction)


@dataclass(frozen=True, slots=True)
class _Sums:
    """S at d = 0, Q and h of each stage past its burn-in, in the metric's units."""

    stages: tuple[MomentStage, ...]
    s: Floats
    q: Floats
    h: Floats
    rho: float

    @classmethod
    def of(cls, stages: Sequence[MomentStage], metric: Metric, log_threshold: float, toward: int) -> _Sums:
        counted = tuple(stage for stage in stages if _is_ready(stage, metric, log_threshold, toward))
        unit = metric.unit
        s = np.array([stage.weighed_difference * unit for stage in counted])
        h = np.array([stage.pairs for stage in counted])
        spread = [stage.stable.variance_of_mean + stage.candidate.variance_of_mean for stage in counted]
        q = h * h * np.array(spread) * (unit * unit)
        rho = mixture_precision(log_threshold, metric.planned_pairs * metric.deviation * metric.deviation)
        return cls(counted, s, q, h, rho)

    def log_e(self, metric: Metric, limit: float, direction: Direction) -> Mixture:
        if not 0.0 <= limit < math.inf:
            raise ValueError(f"limit: got {limit!r}, expected a number of at least 0, in the metric's units")
        if not self.stages:
            return Mixture(0.0, 0, 0.0)
        is_rollback = direction is Direction.ROLLBACK
        worse = -1.0 if metric.is_higher_better else 1.0
        s = worse * self.s - limit * self.h
        s = s if is_rollback else -s
        from_here = [np.add.accumulate(terms[::-1])[::-1] for terms in (s, self.q)]
        by_start = log_normal_mixture(from_here[0], from_here[1], self.rho)
        return mix(by_start, [stage.index for stage in self.stages], restarts=is_rollback)

    def since(self, start: int) -> _Sums:
        return _Sums(self.stages[start:], self.s[start:], self.q[start:], self.h[start:], self.rho)

    def interval(self, log_threshold: float) -> tuple[float, float] | None:
        if not self.stages:
            return None
        q, h = float(self.q.sum()), float(self.h.sum())
        centre = float(self.s.sum()) / h
        reach = math.sqrt((q + self.rho) * (math.log1p(q / self.rho) + 2.0 * max(log_threshold - math.log(2.0), 0.0)))
        return centre - reach / h, centre + reach / h


def _judge(
    stages: Sequence[MomentStage], metric: Metric, log_threshold: float, direction: Direction, limit: float
) -> Verdict:
    merged = merge(stages)
    sums = _Sums.of(merged, metric, log_threshold, _toward(metric, direction))
    evidence = sums.log_e(metric, limit, direction)
    chosen = sums.since(evidence.start)
    has_effect = bool(chosen.stages)
    both_ways = _Sums.of(chosen.stages, metric, log_threshold, 0)  # an interval may need to wait longer
    return difference.verdict(
        direction,
        evidence.log_e,
        log_threshold,
        n=sum(stage.n for stage in (chosen.stages if has_effect else merged)),
        effect=float(chosen.s.sum() / chosen.h.sum()) if has_effect else None,
        interval=both_ways.interval(log_threshold - evidence.log_weight),
        counts=tuple(stage.as_row() for stage in merged),
        subject=f"candidate's {metric.name}",
        reference="stable's",
        since=chosen.stages[0].index if evidence.start else None,
        shown=difference.side_shown(direction, limit, is_higher_better=metric.is_higher_better),
    )


def _is_ready(stage: MomentStage, metric: Metric, log_threshold: float, toward: int) -> bool:
    """Past the burn-in, and with some spread on both arms: without it the variance is not known, whatever n is."""
    arms = stage.stable, stage.candidate
    burnt_in = is_burnt_in(stage.stable.n, stage.candidate.n, log_threshold, metric.skewness, toward)
    return burnt_in and all(arm.variance_of_mean > 0.0 for arm in arms)


def _toward(metric: Metric, direction: Direction) -> int:
    """1 for a test that finds a higher mean of the candidate, -1 for a lower one."""
    return difference.side_shown(direction, 0.0, is_higher_better=metric.is_higher_better)[0]
