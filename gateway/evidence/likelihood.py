"""The likelihood of arm labels, given that the counted events happened: what all label tests are made of.

Routing draws the candidate with the probability pi in force, so if the candidate has the event r times as often as
stable at that moment, an event is the candidate's with probability pi r / (pi r + 1 - pi), whatever the common rate is
and does. Everything here works on many problems at once, and a problem's bits do not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.numeric import Floats, log_sum_exp

Indices = npt.NDArray[np.intp]

N_COARSE = 24  # alternatives spread evenly in the logarithm: the effects worth finding soon
N_FINE = 24  # alternatives ever closer to the null: without them an effect below 2.4 % would never be found
COARSE_WEIGHT = 15 / 16  # of the mixture; the fine ones cost the others ln(16/15) = 0.06, some 1 % of the data
MODEST_FIRST = 0.75  # weights fall as 32^(-0.75 j/23): with even ones a factor 1.5 is found a seventh later
LEAST_COARSE = math.log(1.05)
MOST_ABOVE = math.log(32.0)
MOST_BELOW = math.log(8.0)
FINE_STEP = 1.6  # ratio of neighbours; the best of them has at least 97 % of the growth of the truth itself

# Evidence from the first stage on, and from each later stage on as if there had been none before. A candidate that goes
# bad after a long good time would otherwise have to make good all the evidence in its favour first.
FULL_WEIGHT = 0.95  # costs ln(1/0.95) = 0.05 against no restarts
_WIDEST = 50.0  # log relative risks searched for limits: e^-50 to e^50
_NARROW_STEPS = 8  # halvings of a bracket that reaches some twice as far as the limit: within 1 % of its width
_WIDE_STEPS = 28
_MAX_NEWTON = 120  # steps of at most 1 from anywhere in that range


def _alternatives(most: float) -> Floats:
    coarse = np.linspace(LEAST_COARSE, most, N_COARSE)
    fine = LEAST_COARSE * FINE_STEP ** -np.arange(1.0, N_FINE + 1.0)
    return np.concatenate([coarse, fine])


ABOVE = _alternatives(MOST_ABOVE)  # ln(r_j / r0) of the alternatives to "at most r0"
BELOW = -_alternatives(MOST_BELOW)  # and to "at least r0"
_MODEST = np.exp(-MODEST_FIRST * ABOVE[:N_COARSE])
LOG_WEIGHTS = np.log(  # of either, in the order of their effects
    np.concatenate([_MODEST / _MODEST.sum() * COARSE_WEIGHT, np.full(N_FINE, (1 - COARSE_WEIGHT) / N_FINE)])
)


@dataclass(frozen=True)
class Labels:
    """Arm labels of many problems: arrays of shape (stages, problems), padded at the end with stages without events."""

    index: Floats  # of the stage, for the weight of a restart
    pi: Floats
    n: Floats  # events
    k: Floats  # of which the candidate's

    @classmethod
    def from_problems(cls, problems: Sequence[Sequence[Stage]], phis: Sequence[float] | None = None) -> Labels:
        """Stages of each problem in order of index. Those that cannot tell (no event, or pi 0 or 1) are left out.

        phis: what to divide the counts of each problem by, see `dispersion`.
        """
        telling = [[stage for stage in stages if stage.k and 0.0 < stage.pi < 1.0] for stages in problems]
        n_stages = max([1, *map(len, telling)])
        table = np.zeros((4, n_stages, len(telling)))
        table[1] = 0.5
        for column, stages in enumerate(telling):
            if stages:
                table[:, : len(stages), column] = np.array(
                    [(stage.index, stage.pi, stage.k, stage.k_candidate) for stage in stages], np.float64
                ).T
        if phis is not None:
            table[2:] /= np.array(phis, np.float64)
        return cls(*table)

    @classmethod
    def from_events(
        cls, groups: Sequence[tuple[Sequence[BinnedStage], Floats, Floats]], phis: Sequence[float]
    ) -> Labels:
        """Several events of the same stages: for each group its stages, and n and k as (stages, events)."""
        n_stages = max([1, *(len(stages) for stages, _, _ in groups)])
        table = np.zeros((4, n_stages, sum(n.shape[1] for _, n, _ in groups)))
        table[1] = 0.5
        at = 0
        for (stages, n, k), phi in zip(groups, phis, strict=True):
            rows, columns = slice(len(stages)), slice(at, at + n.shape[1])
            pi = np.array([[stage.pi] for stage in stages]).reshape(-1, 1)
            telling = (pi > 0.0) & (pi < 1.0)
            table[0, rows, columns] = np.array([[stage.index] for stage in stages]).reshape(-1, 1)
            table[1, rows, columns] = np.where(telling, pi, 0.5)
            table[2, rows, columns] = np.where(telling, n, 0.0) / phi
            table[3, rows, columns] = np.where(telling, k, 0.0) / phi
            at += n.shape[1]
        return cls(*table)

    def since(self, start: Indices) -> Labels:
        """Only the stages from row `start` (one for each problem) on."""
        keep = np.arange(self.n.shape[0])[:, None] >= start
        return Labels(self.index, self.pi, np.where(keep, self.n, 0.0), np.where(keep, self.k, 0.0))

    def column(self, problems: Indices) -> Labels:
        """Some of the problems."""
        return Labels(self.index[:, problems], self.pi[:, problems], self.n[:, problems], self.k[:, problems])


def log_e_of_stages(labels: Labels, log_r0: Floats, log_ratios: Floats) -> Floats:
    """ln likelihood ratio of each alternative r0 exp(log_ratios) to r0, stage by stage: (stages, problems, nodes).

    k h - n ln(1 + q (e^h - 1)),  h = ln(r_j / r0),  q = pi r0 / (1 - pi + pi r0)

    `log_r0` is (problems,), `log_ratios` (problems, nodes). Source: own composition, see `label`. The error is about
    1e-16 n |h|: at 1e12 events some 1e-5 at the alternatives that matter there.
    """
    odds = labels.pi * np.exp(log_r0)
    q = odds / ((1.0 - labels.pi) + odds)
    result: Floats = np.multiply(q[:, :, None], np.expm1(log_ratios))
    np.log1p(result, out=result)
    np.multiply(labels.n[:, :, None], result, out=result)
    np.subtract(labels.k[:, :, None] * log_ratios, result, out=result)
    return result


def log_e_by_start(labels: Labels, log_r0: Floats, log_ratios: Floats) -> Floats:
    """ln e-value of the mixture over alternatives from each stage on: (stages, problems); row 0 is all of history."""
    each = log_e_of_stages(labels, log_r0, log_ratios)
    summed = np.add.accumulate(each[::-1], axis=0)[::-1]
    return log_sum_exp(summed + LOG_WEIGHTS, axis=-1)


def log_start_weights(labels: Labels, restarts: bool = True) -> Floats:
    """ln weight of the evidence from each stage on: (stages, problems); fixed by the index, sums to at most 1.

    FULL_WEIGHT for the whole history, (1 - FULL_WEIGHT) / (i (i+1)) for a restart at the stage with index i >= 1.
    Without restarts, 1 and 0.
    """
    weights = np.full(labels.index.shape, -np.inf)
    if restarts:
        # a stage without events before it is the whole history, one without events of its own the history of the next
        news = (labels.n[1:] > 0.0) & (np.add.accumulate(labels.n, axis=0)[:-1] > 0.0)
        later = np.where(news, labels.index[1:], np.inf)
        with np.errstate(divide="ignore"):
            weights[1:] = math.log1p(-FULL_WEIGHT) - np.log(later) - np.log1p(later)
    weights[0] = math.log(FULL_WEIGHT) if restarts else 0.0
    return weights


def log_e_total(labels: Labels, log_r0: Floats, log_ratios: Floats) -> Floats:
    """ln e-value of the mixture over alternatives, all stages: (problems,)."""
    each = log_e_of_stages(labels, log_r0, log_ratios)
    return log_sum_exp(np.add.reduce(each, axis=0) + LOG_WEIGHTS, axis=-1)


def estimate(labels: Labels) -> Floats:
    """Maximum-likelihood log relative risk, from -50 to 50; -inf without candidate events, inf without stable ones.

    Solves sum k = sum n pi r / (1 - pi + pi r). NaN where there is no event at all.
    """
    k, n = np.add.reduce(labels.k, axis=0), np.add.reduce(labels.n, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        crude = np.log(k) - np.log(n - k)
        share = np.add.reduce(labels.n * labels.pi, axis=0) / n
        log_r: Floats = crude - np.log(share) + np.log1p(-share)
    open_ = np.isfinite(log_r)
    u = np.clip(np.where(open_, log_r, 0.0), -_WIDEST, _WIDEST)
    for _ in range(_MAX_NEWTON):
        odds = labels.pi * np.exp(u)
        q = odds / ((1.0 - labels.pi) + odds)
        score = k - np.add.reduce(labels.n * q, axis=0)
        information = np.add.reduce(labels.n * q * (1.0 - q), axis=0)
        step = score / np.maximum(np.maximum(information, np.abs(score)), 1e-300)  # Newton's, but at most 1
        step = np.clip(u + step, -_WIDEST, _WIDEST) - u
        moving = open_ & (np.abs(step) > 1e-12)
        if not moving.any():
            break
        u = np.where(moving, u + step, u)
        open_ = moving
    return np.where(np.isfinite(log_r), u, log_r)


def limits(labels: Labels, log_thresholds: Floats) -> tuple[Floats, Floats]:
    """Log relative risks that the evidence leaves possible: (low, high), each (problems,).

    low: the largest r0 for which the test of "at most r0" reaches the threshold; high: the smallest for which the test
    of "at least r0" does. As the log-likelihood is concave in ln r, the evidence at r0 falls (rises) with r0, so one
    crossing is all there is. Found by bisection and rounded outwards, so the guarantee of the tests is kept.
    """
    n = np.add.reduce(labels.n, axis=0)
    centre = estimate(labels)
    bounded = np.isfinite(centre)
    u = np.where(bounded, centre, 0.0)
    odds = labels.pi * np.exp(u)
    q = odds / ((1.0 - labels.pi) + odds)
    information = np.maximum(np.add.reduce(labels.n * q * (1.0 - q), axis=0), 1e-300)
    reach = np.sqrt(2.0 * (log_thresholds + 12.0) / information)
    # low ends are problems 0..p-1, high ends p..2p-1; x runs outwards from the estimate
    p = n.size
    both = Labels(*(np.concatenate([field, field], axis=1) for field in (labels.index, labels.pi, labels.n, labels.k)))
    ratios = np.concatenate([np.broadcast_to(ABOVE, (p, ABOVE.size)), np.broadcast_to(BELOW, (p, BELOW.size))])
    thresholds = np.concatenate([log_thresholds, log_thresholds])
    outward = np.concatenate([np.full(p, -1.0), np.full(p, 1.0)])
    start = np.concatenate([np.where(bounded, u, _WIDEST), np.where(bounded, u, -_WIDEST)])
    end = np.where(np.tile(bounded, 2), start + outward * np.tile(reach, 2), outward * _WIDEST)
    end = np.clip(end, -_WIDEST, _WIDEST)
    start = np.clip(start, -_WIDEST, _WIDEST)

    wide = log_e_total(both, end, ratios) < thresholds
    end = np.where(wide, outward * _WIDEST, end)
    wide |= ~np.tile(bounded, 2)
    rejected = np.ones(2 * p, bool)
    some = np.flatnonzero(wide)
    if some.size:
        rejected[some] = log_e_total(both.column(some), end[some], ratios[some]) >= thresholds[some]
    for steps, which in ((_NARROW_STEPS, np.flatnonzero(~wide)), (_WIDE_STEPS, some)):
        if which.size:
            part = both.column(which)
            inner, outer = start[which], end[which]
            for _ in range(steps):
                middle = 0.5 * (inner + outer)
                out = log_e_total(part, middle, ratios[which]) >= thresholds[which]
                inner, outer = np.where(out, inner, middle), np.where(out, middle, outer)
            end[which] = outer
    end = np.where(rejected, end, outward * np.inf)
    low: Floats = end[:p]
    high: Floats = end[p:]
    return low, high
