"""Shadow pairs: the candidate answered the same requests as stable, in shadow. Do they agree, and who is right?

A pair cancels what the request itself makes hard, so it says more than two requests split over arms. Two questions:

disagreement   the share of pairs whose answers differ, against a limit: the exact test of a share (`limit`).
correctness    with labels. Of a pair, x = (only stable right) - (only candidate right), in {-1, 0, 1}; its mean is the
               accuracy that the candidate loses. H0 "loses at most d" (rollback) or "at least d" (promote):
                   rollback, d = 0:  BB+(S, D; 1/2, 8), S of the D pairs with one right have stable right; see `numeric`
                   otherwise:        E = mean_j (1 + b_j (1-d))^S (1 - b_j (1+d))^C (1 - b_j d)^T        (rollback)
                                     E = mean_j (1 - b_j (1-d))^S (1 + b_j (1+d))^C (1 + b_j d)^T        (promote)
               with S, C, T pairs with only stable, only the candidate, both or none right, and bets b_j spread over
               0.002 to 0.98 of the largest that cannot ruin, 1/(1+d) and 1/(1-d).

A shadow answer that failed or came too late differs and is not right; a pair whose shadow request was dropped for lack
of room is no pair, which is sound as long as dropping does not depend on the candidate's answer.
Source: one-sided beta-binomial, Howard et al. 2021; betting, Waudby-Smith & Ramdas 2024, on integers (own composition).
Guarantee: exact, if given the past each pair's probability (mean of x) is within H0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evidence import limit as share_limit
from gateway.evidence import sentence
from gateway.evidence.counts import CountError, count, merge
from gateway.evidence.numeric import as_float, log_beta_binomial_above, log_mean_exp
from gateway.evidence.verdict import Direction, Outcome, Verdict, outcome_of

SIGN_PRIOR = 8.0  # c of the sign test: an even prior over the share, tightest at some 60 discordant pairs
BETS = np.geomspace(0.002, 0.98, 24)  # as shares of the largest bet


@dataclass(frozen=True, slots=True)
class PairStage:
    """Shadow pairs of one stage; the last three only count pairs that got a label."""

    index: int
    n: int  # pairs whose answers were compared
    n_differ: int
    n_labelled: int = 0
    n_only_stable_right: int = 0
    n_only_candidate_right: int = 0

    def __post_init__(self) -> None:
        for field in self.__slots__:
            object.__setattr__(self, field, count(field, getattr(self, field)))
        if self.n_differ > self.n:
            raise CountError("n_differ", self.n_differ, f"at most n = {self.n}")
        if self.n_only_stable_right + self.n_only_candidate_right > self.n_labelled:
            got = (self.n_only_stable_right, self.n_only_candidate_right)
            raise CountError(
                "n_only_stable_right, n_only_candidate_right", got, f"together at most n_labelled = {self.n_labelled}"
            )

    def __add__(self, other: PairStage) -> PairStage:
        if self.index != other.index:
            raise CountError("index", other.index, f"{self.index}: only counts of the same stage add up")
        sums = (a + b for a, b in zip(self.as_row()[1:], other.as_row()[1:], strict=True))
        return PairStage(self.index, *sums)

    def as_row(self) -> tuple[int, int, int, int, int, int]:
        """For `Verdict.counts`: the fields in order."""
        return (
            self.index,
            self.n,
            self.n_differ,
            self.n_labelled,
            self.n_only_stable_right,
            self.n_only_candidate_right,
        )


def disagreement(
    stages: Sequence[PairStage], log_threshold: float, *, limit: float, direction: Direction = Direction.ROLLBACK
) -> Verdict:
    """WORSE when more than the share `limit` of pairs differ, OK (PROMOTE) when fewer do.

    H0 is "at most" ("at least") `limit`, given the past. `effect` is the share, `interval` its confidence sequence.
    """
    stages = merge(stages)
    n, k = sum(stage.n for stage in stages), sum(stage.n_differ for stage in stages)
    log_e = (share_limit.log_e_above if direction is Direction.ROLLBACK else share_limit.log_e_below)(k, n, limit)
    outcome = outcome_of(direction, log_e, log_threshold) if n else Outcome.UNKNOWN
    low, high = share_limit.interval(k, n, log_threshold)
    effect = k / n if n else None
    said = "no shadow pairs yet"
    if effect is not None:
        span = sentence.span(low, high, sentence.percent)
        said = (
            f"candidate answers differently in {sentence.percent(effect)} {span} of {sentence.requests(n)} shadow"
            f" requests, limit {sentence.percent(limit)}; {_ending(outcome, log_e, log_threshold)}"
        )
    rows = tuple(stage.as_row() for stage in stages)
    return Verdict(outcome, log_e, log_threshold, n, effect, (low, high), rows, said)


def correctness(
    stages: Sequence[PairStage],
    log_threshold: float,
    *,
    loss: float = 0.0,
    direction: Direction = Direction.ROLLBACK,
) -> Verdict:
    """WORSE when the candidate loses more than `loss` of accuracy; OK (PROMOTE) when it loses less.

    `effect` is the accuracy lost, negative when gained; `interval` is `loss_interval`, within what was shown.
    """
    if not 0.0 <= loss < 1.0 or (direction is Direction.PROMOTE and loss == 0.0):
        raise ValueError(f"loss: got {loss!r}, expected a share from 0 to 1, and above 0 to promote")
    stages = merge(stages)
    n = sum(stage.n_labelled for stage in stages)
    stable, candidate = (
        sum(stage.n_only_stable_right for stage in stages),
        sum(stage.n_only_candidate_right for stage in stages),
    )
    log_e = log_e_of_loss(stable, candidate, n - stable - candidate, loss, direction)
    outcome = outcome_of(direction, log_e, log_threshold) if n else Outcome.UNKNOWN
    effect = (stable - candidate) / n if n else None
    low, high = loss_interval(stable, candidate, n, log_threshold)
    if outcome is Outcome.WORSE:
        low, high = max(low, loss), max(high, loss)
    elif outcome is Outcome.OK:
        low, high = min(low, loss), min(high, loss)
    said = "no labelled shadow pairs yet"
    if effect is not None:
        verb = "loses" if effect >= 0.0 else "gains"
        ends = (low, high) if effect >= 0.0 else (-high, -low)
        said = (
            f"candidate {verb} {sentence.percent(abs(effect))} {sentence.span(*ends, sentence.percent)} of accuracy"
            f" on {sentence.requests(n)} labelled shadow requests: right alone in {sentence.requests(candidate)},"
            f" stable in {sentence.requests(stable)}; {_ending(outcome, log_e, log_threshold)}"
        )
    rows = tuple(stage.as_row() for stage in stages)
    return Verdict(outcome, log_e, log_threshold, n, effect, (low, high), rows, said)


def log_e_of_loss(stable: int, candidate: int, ties: int, loss: float, direction: Direction) -> float:
    """ln E of the module's formula for correctness: pairs with only stable, only the candidate, both or none right."""
    if direction is Direction.ROLLBACK and loss == 0.0:
        return as_float(log_beta_binomial_above(stable, stable + candidate, 0.5, SIGN_PRIOR))
    if direction is Direction.ROLLBACK:
        bets = BETS / (1.0 + loss)
        gains = (bets * (1.0 - loss), -bets * (1.0 + loss), -bets * loss)
    else:
        bets = BETS / (1.0 - loss)
        gains = (-bets * (1.0 - loss), bets * (1.0 + loss), bets * loss)
    logs = stable * np.log1p(gains[0]) + candidate * np.log1p(gains[1]) + ties * np.log1p(gains[2])
    return as_float(log_mean_exp(logs))


def loss_interval(stable: int, candidate: int, n: int, log_threshold: float) -> tuple[float, float]:
    """Confidence sequence of the accuracy lost: P(only stable right) - P(only candidate right).

    From the confidence sequences of both probabilities, each at half the risk: [low_s - high_c, high_s - low_c].
    Guarantee: contains the loss at all times with probability at least 1 - exp(-log_threshold), if it is constant.
    """
    half = log_threshold + math.log(2.0)
    low_s, high_s = share_limit.interval(stable, n, half)
    low_c, high_c = share_limit.interval(candidate, n, half)
    return low_s - high_c, high_s - low_c


def _ending(outcome: Outcome, log_e: float, log_threshold: float) -> str:
    if outcome is Outcome.WORSE:
        return sentence.risk(log_threshold)
    if outcome is Outcome.OK:
        return sentence.risk(log_threshold, "a false promotion")
    return sentence.undecided(log_e, log_threshold)
