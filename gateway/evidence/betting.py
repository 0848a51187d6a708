"""A bounded metric (score, rating, capped revenue), candidate against stable: bets on the routing coin. Exact.

The gateway drew the arm A (1: candidate) of every request with the known probability pi. With y in [0, 1] and a centre
m frozen before the rollout,
    x = -(A - pi) (y - m) / (pi (1 - pi)),    so  x = -(y - m) / pi on the candidate and (y - m) / (1 - pi) on stable,
has mean (stable's mean - candidate's mean) = the drop, whatever m is and however both means drift together: m changes
only the variance. Someone who bets a share f of a fair game's largest stake on "the drop is more than d" has
    W_f = product of [1 + f (x - d) / (b + d)],    b = -min x = max((1 - m)/pi, m/(1 - pi)),
which is never negative and does not grow in the mean when the drop is at most d. The e-value is the mean of W_f over 16
shares f. Source: Waudby-Smith & Ramdas 2024 (grid betting), with inverse-propensity increments and a centre instead of
a regression.

What is counted: requests by level (0 .. K, the metric rounded to K + 1 steps), arm and stage. A product over requests
is then a sum over cells, so counts merge in any order, any tolerance can be asked afterwards, and the interval is the
set of drops that no bet has ruled out. For a yes/no metric K = 1; `label` on it is about as quick and needs no centre.

Late values (a label that arrives tomorrow) are counted when they arrive; count for both arms only requests old enough
for their value to have come (see `watermark`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize  # type: ignore[import-untyped]

from gateway.evidence import difference
from gateway.evidence.counts import BinnedStage, merge, probability, rows
from gateway.evidence.numeric import Floats, as_float, log_mean_exp
from gateway.evidence.restarts import Mixture, mix
from gateway.evidence.verdict import Direction, Verdict

SHARES: Floats = np.geomspace(
    0.001, 0.5, 16
)  # of the largest stake; the best is about effect * (b + d) / variance of x
_PRECISION = 1e-7  # of an end of the interval, in shares of the metric's range


@dataclass(frozen=True, slots=True)
class Metric:
    """A bounded metric, fixed before the rollout starts."""

    centre: float  # m, in the metric's units: the baseline's mean. A bad one costs speed, never the guarantee
    low: float = 0.0  # values are clipped to low..high; what is compared is the mean of the clipped values
    high: float = 1.0
    is_higher_better: bool = True
    name: str = "mean"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"low, high: got {self.low!r}, {self.high!r}, expected two finite numbers, low < high")
        if not self.low <= self.centre <= self.high:
            raise ValueError(f"centre: got {self.centre!r}, expected a number from {self.low} to {self.high}")

    @property
    def span(self) -> float:
        """high - low."""
        return self.high - self.low

    def level(self, value: float, k: int, dither: float = 0.5) -> int:
        """The level (0 .. k) that a value is counted at: floor(k (value - low)/span + dither), clipped. NaN is refused.

        With dither 0.5 the metric that is compared is the rounded one (off by at most span/(2k) a value). With a dither
        uniform on [0, 1), drawn from a hash of the request, the level's mean is exactly the value, so is the guarantee.
        """
        if math.isnan(value):
            raise ValueError("value: got nan, expected a number; count missing values as an event of their own")
        scaled = min(max((value - self.low) / self.span, 0.0), 1.0)
        return min(k, math.floor(k * scaled + dither))


@dataclass(frozen=True, slots=True)
class _Cells:
    """Cells with counts, of all telling stages: how many requests, x of each, the bounds of x, and the stage's row."""

    n: Floats
    x: Floats
    below: Floats  # b: x >= -b
    stage_starts: tuple[int, ...]
    indices: tuple[int, ...]

    @classmethod
    def of(cls, stages: Sequence[BinnedStage], centre: float, flip: bool) -> _Cells:
        """`centre` on the 0..1 scale. flip: of 1 - y, so that a rise is a drop."""
        m = 1.0 - centre if flip else centre
        parts: list[tuple[Floats, Floats, Floats]] = []
        starts, indices, at = [], [], 0
        for stage in stages:
            if len(stage.stable) < 2:
                raise ValueError(f"stable: got {len(stage.stable)} level, expected two or more")
            if not _is_telling(stage):
                continue
            pi, rest = stage.pi, 1.0 - stage.pi
            levels = np.arange(len(stage.stable)) / (len(stage.stable) - 1)
            distance = ((1.0 - levels) if flip else levels) - m
            n = np.array(stage.candidate + stage.stable, np.float64)
            x = np.concatenate([distance / -pi, distance / rest])
            seen = n > 0.0
            starts.append(at)
            indices.append(stage.index)
            at += int(np.count_nonzero(seen))
            parts.append((n[seen], x[seen], np.full(at - starts[-1], max((1.0 - m) / pi, m / rest))))
        if not parts:
            return cls(np.zeros(0), np.zeros(0), np.zeros(0), (), ())
        n, x, below = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(n, x, below, tuple(starts), tuple(indices))

    def log_e_by_start(self, drop: float) -> Floats:
        """ln e-value against "the drop is at most `drop`" from each stage on."""
        gain = (self.x - drop) / (self.below + drop)  # >= -1
        each = self.n * np.log1p(SHARES[:, None] * gain)
        by_stage = np.add.reduceat(each, self.stage_starts, axis=1)
        return log_mean_exp(np.add.accumulate(by_stage[:, ::-1], axis=1)[:, ::-1], axis=0)

    def log_e(self, drop: float) -> float:
        """ln e-value against "the drop is at most `drop`", of the whole history."""
        gain = (self.x - drop) / (self.below + drop)
        return as_float(log_mean_exp(np.add.reduce(self.n * np.log1p(SHARES[:, None] * gain), axis=1)))

    def probes(self, log_threshold: float) -> tuple[float, float, float]:
        """Tested drops that the crossing probably lies between: the mean of x less some deviations."""
        n = float(np.add.reduce(self.n))
        mean = float(np.add.reduce(self.n * self.x)) / n
        deviation = math.sqrt(float(np.add.reduce(self.n * (self.x - mean) ** 2))) / n
        reach = math.sqrt(2.0 * (max(log_threshold, 0.0) + 2.0)) * deviation
        return mean - 2.0 * reach, mean - 0.7 * reach, mean - 1.2 * reach


def rollback(
    stages: Sequence[BinnedStage],
    metric: Metric,
    log_threshold: float,
    *,
    tolerated: float,
    with_interval: bool = True,
) -> Verdict:
    """WORSE when the evidence against "the candidate's mean is worse by at most `tolerated`" reaches the threshold.

    `tolerated` >= 0 in the metric's units. Evidence from each later stage on is mixed in (see `restarts`). `effect` is
    candidate minus stable over the history that says most. The interval takes nine tenths of the time (some
    milliseconds); leave it out where nobody reads it. Guarantee: exact, see `log_e`.
    """
    return _judge(stages, metric, log_threshold, Direction.ROLLBACK, tolerated, with_interval)


def promote(
    stages: Sequence[BinnedStage],
    metric: Metric,
    log_threshold: float,
    *,
    margin: float,
    with_interval: bool = True,
) -> Verdict:
    """OK when the evidence against "the candidate's mean is worse by `margin` or more" reaches the threshold.

    `margin` > 0 in the metric's units. No restarts: a good week does not promote what was bad before it.
    Guarantee: exact, see `log_e`.
    """
    return _judge(stages, metric, log_threshold, Direction.PROMOTE, margin, with_interval)


def log_e(stages: Sequence[BinnedStage], metric: Metric, limit: float, direction: Direction) -> float:
    """ln e-value of the whole history: ln mean_f exp sum_cells n ln[1 + f (x - d) / (b + d)], d = tested drop / span.

    ROLLBACK: H0 "worse by at most `limit`"; PROMOTE: H0 "worse by `limit` or more", the same bets on the mirrored
    metric with d = -limit / span. Units of the metric. Source: see the module.
    Guarantee: exp of it is an e-process, exact at any sample size and any looks, if at every moment the difference of
    the means given the past is as H0 says; both means may drift together, and pi may change, stage by stage.
    """
    cells, drop = _posed(merge(stages), metric, limit, direction)
    return cells.log_e(drop) if cells.indices else 0.0


def interval(stages: Sequence[BinnedStage], metric: Metric, log_threshold: float) -> tuple[float, float]:
    """Confidence sequence of (candidate's mean - stable's mean), in the metric's units.

    All differences that neither one-sided test rejects. A bet's W_f falls when the tested drop grows (its derivative
    has the sign of -(x + b) <= 0), so each side has one crossing; found by halving and rounded outwards.
    Guarantee: each end is wrong at any time with probability at most exp(-log_threshold), if the difference is
    constant; if not, low is below its largest and high above its smallest value.
    """
    return _interval(merge(stages), metric, log_threshold)


def estimate(stages: Sequence[BinnedStage], metric: Metric) -> float | None:
    """Candidate's mean minus stable's in the metric's units; None before both arms have a value in some stage.

    Within each stage, then weighed by n_c n_s / (n_c + n_s) (Mantel & Haenszel): what changes between stages cancels.
    """
    total, weight = 0.0, 0.0
    for stage in merge(stages):
        n_c, n_s = stage.n_candidate, stage.n_stable
        if n_c and n_s:
            k = len(stage.stable) - 1
            sum_c = sum(level * number for level, number in enumerate(stage.candidate))
            sum_s = sum(level * number for level, number in enumerate(stage.stable))
            total += (sum_c * n_s - sum_s * n_c) / ((n_c + n_s) * k)
            weight += n_c * n_s / (n_c + n_s)
    return metric.span * total / weight if weight else None


def log_e_with_restarts(stages: Sequence[BinnedStage], metric: Metric, limit: float, direction: Direction) -> Mixture:
    """ln e-value that a verdict rests on: for ROLLBACK with the evidence from each later stage on (see `restarts`)."""
    cells, drop = _posed(merge(stages), metric, limit, direction)
    if not cells.indices:
        return Mixture(0.0, 0, 0.0)
    return mix(cells.log_e_by_start(drop), cells.indices, restarts=direction is Direction.ROLLBACK)


def _judge(
    stages: Sequence[BinnedStage],
    metric: Metric,
    log_threshold: float,
    direction: Direction,
    limit: float,
    with_interval: bool,
) -> Verdict:
    merged = merge(stages)
    evidence = log_e_with_restarts(merged, metric, limit, direction)
    telling = [stage for stage in merged if _is_telling(stage)]
    chosen = telling[evidence.start :]
    effect = estimate(chosen, metric)
    between = None
    if with_interval and effect is not None:
        between = _interval(chosen, metric, log_threshold - evidence.log_weight)
    return difference.verdict(
        direction,
        evidence.log_e,
        log_threshold,
        n=sum(stage.n for stage in chosen),
        effect=effect,
        interval=between,
        counts=rows(merged),
        subject=f"candidate's {metric.name}",
        reference="stable's",
        since=chosen[0].index if evidence.start else None,
        shown=difference.side_shown(direction, limit, is_higher_better=metric.is_higher_better),
    )


def _posed(stages: Sequence[BinnedStage], metric: Metric, limit: float, direction: Direction) -> tuple[_Cells, float]:
    """The cells and the tested drop. A promote test asks for a rise of the mirrored metric above -limit."""
    if not 0.0 <= limit < metric.span:
        raise ValueError(
            f"limit: got {limit!r}, expected a number from 0 to below {metric.span}, in the metric's units"
        )
    is_rollback = direction is Direction.ROLLBACK
    cells = _Cells.of(stages, _centre(metric), flip=metric.is_higher_better is not is_rollback)
    return cells, (limit if is_rollback else -limit) / metric.span


def _interval(stages: Sequence[BinnedStage], metric: Metric, log_threshold: float) -> tuple[float, float]:
    least = []  # the smallest drop, and the smallest rise, that is not rejected, on the 0..1 scale
    for flip in (False, True):
        cells = _Cells.of(stages, _centre(metric), flip)
        least.append(_crossing(cells, log_threshold) if cells.indices else -1.0)
    drop, rise = least
    return rise * metric.span, -drop * metric.span


def _crossing(cells: _Cells, log_threshold: float) -> float:
    """The tested drop, from -1 to 1, at which the evidence falls below the threshold; rounded to the rejected side."""
    rejected, kept = -1.0 + 1e-9, 1.0 - 1e-9
    if cells.log_e(rejected) < log_threshold:
        return -1.0
    if cells.log_e(kept) >= log_threshold:
        return kept
    for middle in cells.probes(log_threshold):
        if rejected < middle < kept:
            is_rejected = cells.log_e(middle) >= log_threshold
            rejected, kept = (middle, kept) if is_rejected else (rejected, middle)
    root = optimize.brentq(lambda drop: cells.log_e(drop) - log_threshold, rejected, kept, xtol=_PRECISION)
    return max(rejected, float(root) - 2.0 * _PRECISION)


def _is_telling(stage: BinnedStage) -> bool:
    return 0.0 < stage.pi < 1.0 and stage.n > 0


def _centre(metric: Metric) -> float:
    return probability("centre", (metric.centre - metric.low) / metric.span)
