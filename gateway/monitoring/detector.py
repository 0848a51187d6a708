"""When to page: windows of all columns as evidence that adds up, against one budget in an operator's words.

For every column and window k an e-value, at most 1 on average as long as nothing is wrong, goes into a Shiryaev-Roberts
e-detector (Shin, Ramdas & Rinaldo): M_k = (M_{k-1} + 1) e_k, and a page at M >= A = K W D. However windows and columns
hang together, all K columns then page wrongly at most once in D days on average, with W windows a day. The e-value:

    until LEARNED like windows are known     e = e_major
    then                                     e = .9 min(e_tolerated, e_like) + .1 (e_major, but at most 1 for a
                                                 window that is no stranger than one of the days before)

e_tolerated, e_major: the window against the baseline (`tolerance`). e_like: its score ranked among the windows of the
same time of day before it, p = (greater + U (1 + equal)) / (1 + number), e = mean of kappa p^(kappa - 1) (Vovk), to the
power 1 / together: windows in a row that hang together are one, since a geometric mean is at most the arithmetic one.
So nothing is wrong, and the budget holds, while requests stay within what is major, and besides are within what is
tolerated, or no stranger than at that time of day before, in whatever way windows wander. min, since either excuses.
U comes from a hash of column and window, so the same counts give the same answer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gateway.evidence import combine
from gateway.evidence.numeric import Bools, Floats, log_mean_exp
from gateway.monitoring.baseline import Integers

LEARNED = 100
"""Like windows; with fewer, a rank says little: the least p is 1 / (1 + number)."""
LIKE_WITHIN_S = 90 * 60
"""Of the same time of day: 180 minutes are like, so the second day has what it needs."""
MAX_WINDOWS = 7 * 1440
KAPPAS = np.array([0.1, 0.2, 0.3, 0.5])
YESTERDAY_S = 12 * 3600
"""From that age on, a like window is of a day before."""
STRANGER = 1.5
"""So many times the greatest score of like windows of the days before, and a major distance speaks for itself."""
BASELINE_SHARE = 0.1
"""Of the wager that is on `major` alone: it finds at once what is large, and costs the rest 10 %."""
NAMED_WRONGLY = 0.1
"""Of the columns named beside a page, on average (e-BH)."""
TOGETHER_EVERY = 60
"""Windows after which it is found anew how many hang together."""
TOGETHER_OF = 1440
MAX_TOGETHER = 60.0
_LEAST_CORRELATION = 0.05
_SMOOTH = 181  # windows; slower changes are the time of day's, and ranks among like windows know them
_DAY_S = 86400


def log_threshold(n_columns: int, windows_per_day: float, budget_days: float) -> float:
    """ln A = ln(K W D)."""
    return math.log(n_columns * windows_per_day * budget_days)


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One window, by column. NaN as score: the column had nothing to judge."""

    score: Floats
    """Distance in tolerances: 1 is what is tolerated. Only its rank among others counts."""
    log_e_tolerated: Floats
    log_e_major: Floats


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What the detector remembers, by column on the last axis. Immutable; arrays are never written to."""

    starts_s: Integers
    scores: tuple[npt.NDArray[np.float32], ...]
    """Of windows past, oldest first: NaN where a column must not serve as reference."""
    log_m: Floats
    n_windows: Integers
    """Since the column's detector began anew."""
    log_run: Floats
    """Evidence since `since_s`, the beginning that makes it greatest."""
    since_s: Integers
    calm: Integers
    """Windows in a row with a score below 1."""
    together: Floats
    """How many windows in a row hang together: 1 when each is new."""

    @classmethod
    def new(cls, n_columns: int) -> State:
        zeros, none = np.zeros(n_columns), np.zeros(n_columns, np.int64)
        return cls(np.zeros(0, np.int64), (), np.full(n_columns, -np.inf), none, zeros, none, none, np.ones(n_columns))

    def restarted(self, columns: Bools) -> State:
        """Those columns begin anew; what they learnt stays."""
        return replace(
            self, log_m=np.where(columns, -np.inf, self.log_m), log_run=np.where(columns, 0.0, self.log_run),
            n_windows=np.where(columns, 0, self.n_windows), calm=np.where(columns, 0, self.calm),
        )  # fmt: skip

    def like(self, start_s: int) -> npt.NDArray[np.intp]:
        """Windows past at that time of day."""
        apart = np.abs(self.starts_s - start_s) % _DAY_S
        return np.flatnonzero(np.minimum(apart, _DAY_S - apart) <= LIKE_WITHIN_S)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one window said, by column."""

    p: Floats
    n_like: Integers
    log_e: Floats


def step(state: State, start_s: int, evidence: Evidence, held: Bools, uniforms: Floats) -> tuple[State, Step]:
    """One more window. `held`: columns whose alarm is open; they gather no evidence and teach nothing."""
    score = evidence.score
    present = ~np.isnan(score)
    like = state.like(start_s)
    before = np.stack([state.scores[at] for at in like]) if like.size else np.zeros((0, score.size), np.float32)
    rounded = score.astype(np.float32)
    n_like = (~np.isnan(before)).sum(0)
    p = ((before > rounded).sum(0) + uniforms * (1 + (before == rounded).sum(0))) / (1.0 + n_like)
    p = np.where(present, np.maximum(p, 1e-12), 1.0)
    log_e_like = log_mean_exp(np.log(KAPPAS) + (KAPPAS - 1.0) * np.log(p)[..., None]) / state.together
    earlier = before[state.starts_s[like] <= start_s - YESTERDAY_S]
    greatest = np.max(np.where(np.isnan(earlier), -np.inf, earlier), axis=0, initial=-np.inf)
    is_strange = score > STRANGER * np.maximum(greatest, 0.0)
    both = np.logaddexp(
        math.log1p(-BASELINE_SHARE) + np.minimum(evidence.log_e_tolerated, log_e_like),
        math.log(BASELINE_SHARE) + np.where(is_strange, evidence.log_e_major, np.minimum(evidence.log_e_major, 0.0)),
    )
    log_e = np.where(n_like >= LEARNED, both, evidence.log_e_major)
    moves = present & ~held
    keep = slice(1, None) if len(state.scores) >= MAX_WINDOWS else slice(None)
    begins = moves & (state.log_run <= 0.0)
    scores = (*state.scores, np.where(held, np.float32(np.nan), rounded))[keep]
    is_due = len(scores) >= LEARNED and start_s // 60 % TOGETHER_EVERY == 0
    return State(
        starts_s=np.append(state.starts_s, start_s)[keep],
        scores=scores,
        log_m=np.where(moves, np.logaddexp(state.log_m, 0.0) + log_e, state.log_m),
        n_windows=state.n_windows + moves,
        log_run=np.where(moves, np.maximum(state.log_run, 0.0) + log_e, state.log_run),
        since_s=np.where(begins, start_s, state.since_s),
        calm=np.where(present, np.where(score < 1.0, state.calm + 1, 0), state.calm),
        together=windows_together(np.stack(scores[-TOGETHER_OF:])) if is_due else state.together,
    ), Step(p, n_like, np.where(present, log_e, 0.0))


def windows_together(scores: npt.NDArray[np.float32]) -> Floats:
    """How many windows in a row count as one, by column: the autocorrelation time of the ranks of their scores."""
    n, n_columns = scores.shape
    ranks = np.argsort(np.argsort(scores, axis=0, kind="stable"), axis=0).astype(np.float64) / n
    ranks[np.isnan(scores)] = 0.5
    sums = np.concatenate([np.zeros((1, n_columns)), np.cumsum(ranks, axis=0)])
    first = np.maximum(np.arange(n) - _SMOOTH // 2, 0)
    last = np.minimum(np.arange(n) + _SMOOTH // 2 + 1, n)
    rest = ranks - (sums[last] - sums[first]) / (last - first)[:, None]
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(rest, size, axis=0)) ** 2
    covariance = np.fft.irfft(spectrum, size, axis=0)[: int(MAX_TOGETHER) + 1]
    correlation = covariance[1:] / np.maximum(covariance[0], 1e-12)
    goes_on = np.cumprod(correlation > _LEAST_CORRELATION, axis=0)
    result: Floats = np.clip(1.0 + 2.0 * (correlation * goes_on).sum(0), 1.0, MAX_TOGETHER)
    return result


def named(state: State, names: Sequence[str]) -> tuple[str, ...]:
    """Which columns the evidence is about, most first (e-BH). M after k windows is at most k on average when nothing is
    wrong, so M / k is an e-value.
    """
    log_es = state.log_m - np.log(np.maximum(state.n_windows, 1))
    return combine.named(dict(zip(names, log_es.tolist(), strict=True)), NAMED_WRONGLY)


def uniforms(seed: str, names: Sequence[str], start_s: int) -> Floats:
    """For ties and the own place in a rank: as good as drawn, and the same in every replay."""
    digests = (hashlib.blake2b(f"{seed}\0{name}\0{start_s}".encode(), digest_size=8).digest() for name in names)
    return np.array([(int.from_bytes(digest, "little") + 0.5) / 2.0**64 for digest in digests])
