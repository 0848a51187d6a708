"""Does a model treat groups alike, within tolerance? Gaps between groups, and candidate against stable in each group.

Nobody draws a person's group with a known probability, so a gap between groups has no exact label test; it is a
difference of two shares, tested as `mean` tests one, stratum by stratum (hours, stages), so that a group that is more
frequent in bad hours does not look ill-treated. Candidate against stable within a group is randomised: there the label
test is exact (`any_group`).

    share of positive answers           demographic parity: `gap` on all requests
    the same among y = 1, and y = 0     equalised odds: `gap` on each, `combined` for both (late labels: `watermark`)
    share below 4/5 of the reference's  four-fifths rule: `ratio`

Sources: `mean`'s; the betting form for paired observations is Chugg, Cortes-Gomez, Wilder & Ramdas, arXiv 2305.17570.
Guarantee of `gap` and `ratio`: asymptotic, from LEAST_VALUES people and LEAST_EVENTS of either answer in each cell on,
for people who answer independently of each other. An exact form without randomisation exists (mixture likelihood over
its maximum under H0); it needs 2 to 2.5 times the data, so it is not used here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evidence import difference, label, sentence
from gateway.evidence.counts import CountError, Stage, count, merge
from gateway.evidence.mean import LEAST_VALUES, PLANNED_VALUES, log_normal_mixture, mixture_precision
from gateway.evidence.numeric import Floats, as_float, log_mean_exp
from gateway.evidence.verdict import Direction, Outcome, Verdict

_PLANNED_Q = PLANNED_VALUES * 0.16  # Q where the test is tightest; 0.16: variance of a share of 0.2 or 0.8
LEAST_EVENTS = 30  # positive, and negative, answers in a cell: a share's skewness is about 1/sqrt(events)


@dataclass(frozen=True, slots=True)
class Stratum:
    """Answers to two groups in one stretch (a stage, an hour) in which their shares are comparable."""

    index: int
    n_group: int  # people or requests of the group that is looked at
    k_group: int  # of which with the positive answer
    n_reference: int
    k_reference: int

    def __post_init__(self) -> None:
        for field in ("index", "n_group", "k_group", "n_reference", "k_reference"):
            object.__setattr__(self, field, count(field, getattr(self, field)))
        if self.k_group > self.n_group:
            raise CountError("k_group", self.k_group, f"at most n_group = {self.n_group}")
        if self.k_reference > self.n_reference:
            raise CountError("k_reference", self.k_reference, f"at most n_reference = {self.n_reference}")

    def __add__(self, other: Stratum) -> Stratum:
        """What two workers counted in the same stratum."""
        if other.index != self.index:
            raise CountError("index", other.index, f"{self.index}: only counts of the same stratum add up")
        return Stratum(
            self.index,
            self.n_group + other.n_group,
            self.k_group + other.k_group,
            self.n_reference + other.n_reference,
            self.k_reference + other.k_reference,
        )

    def as_row(self) -> tuple[int, int, int, int, int]:
        """For `Verdict.counts`: index, n_group, k_group, n_reference, k_reference."""
        return (self.index, self.n_group, self.k_group, self.n_reference, self.k_reference)

    @property
    def is_ready(self) -> bool:
        """Enough people and enough of either answer for the normal approximation."""
        cells = ((self.n_group, self.k_group), (self.n_reference, self.k_reference))
        return all(n >= LEAST_VALUES and min(k, n - k) >= LEAST_EVENTS for n, k in cells)


def log_e_gap_above(strata: Sequence[Stratum], tolerance: float, log_threshold: float) -> float:
    """ln e-value against H0: |share of the group - share of the reference| <= tolerance.

    ln of the mean of the two one-sided normal mixtures (`mean.log_normal_mixture`) against "gap <= tolerance" and
    "gap >= -tolerance": under H0 both are e-processes, so their mean is one, and no alpha is split.
    S = sum_j h_j (p_g - p_r -+ tolerance),  Q = sum_j h_j^2 (p_g q_g / (n_g - 1) + p_r q_r / (n_r - 1)),
    h = n_g n_r / (n_g + n_r) in each stratum j.
    0.0 before the burn-in. Guarantee: asymptotic, see the module.
    """
    _check_tolerance(tolerance)
    sums = _Sums.of(merge(strata), 1.0)
    high, low = (sums.log_e(sign, tolerance, log_threshold) for sign in (1.0, -1.0))
    return as_float(log_mean_exp(np.array([high, low])))


def log_e_gap_below(strata: Sequence[Stratum], tolerance: float, log_threshold: float) -> float:
    """ln e-value against H0: |gap| >= tolerance, the smaller of the two one-sided ones. What lets a model be promoted.

    H0 is "gap >= tolerance or gap <= -tolerance"; under each half its own mixture is an e-process, above the minimum.
    """
    _check_tolerance(tolerance)
    sums = _Sums.of(merge(strata), 1.0)
    return min(sums.log_e(sign, -tolerance, log_threshold) for sign in (1.0, -1.0))


def log_e_ratio_below(strata: Sequence[Stratum], least: float, log_threshold: float) -> float:
    """ln e-value against H0: share of the group >= least * share of the reference (least = 0.8: four fifths).

    H0 is linear in the two shares, p_g - least p_r >= 0, so it needs neither a logarithm nor the delta method:
    S = sum_j h_j (least p_r - p_g), Q = sum_j h_j^2 (var_g + least^2 var_r). Guarantee: asymptotic, see the module.
    """
    if not 0.0 < least <= 1.0:
        raise ValueError(f"least: got {least!r}, expected a ratio above 0 and at most 1")
    return _Sums.of(merge(strata), least).log_e(-1.0, 0.0, log_threshold)


def gap(
    strata: Sequence[Stratum],
    log_threshold: float,
    *,
    tolerance: float,
    direction: Direction = Direction.ROLLBACK,
    group: str = "the group",
    reference: str = "the reference",
) -> Verdict:
    """Verdict on the difference of two groups' shares.

    ROLLBACK: WORSE when "the gap is at most `tolerance`" is rejected; PROMOTE: OK when "it is `tolerance` or more" is.
    `tolerance` >= 0 in shares (0.05: five points). `effect` is group minus reference, with its confidence sequence.
    Guarantee: asymptotic, see the module.
    """
    merged = merge(strata)
    test = log_e_gap_above if direction is Direction.ROLLBACK else log_e_gap_below
    log_e = test(merged, tolerance, log_threshold)
    sums = _Sums.of(merged, 1.0)
    is_ready = sums.h > 0.0
    return difference.verdict(
        direction,
        log_e,
        log_threshold,
        n=sum(stratum.n_group + stratum.n_reference for stratum in merged),
        effect=sums.s / sums.h if is_ready else None,
        interval=sums.interval(log_threshold) if is_ready else None,
        counts=tuple(stratum.as_row() for stratum in merged),
        subject=f"share of positive answers of {group}",
        reference=f"{reference}'s",
    )


def ratio(
    strata: Sequence[Stratum],
    log_threshold: float,
    *,
    least: float = 0.8,
    group: str = "the group",
    reference: str = "the reference",
) -> Verdict:
    """WORSE when "the group's share is at least `least` times the reference's" is rejected. Effect: that ratio."""
    merged = merge(strata)
    log_e = log_e_ratio_below(merged, least, log_threshold)
    ready = [stratum for stratum in merged if stratum.is_ready]
    n = sum(stratum.n_group + stratum.n_reference for stratum in merged)
    counts = tuple(stratum.as_row() for stratum in merged)
    if not ready:
        text = f"too few answers to {group} or {reference} to tell"
        return Verdict(Outcome.UNKNOWN, 0.0, log_threshold, n, None, None, counts, text)
    weights = [stratum.n_group * stratum.n_reference / (stratum.n_group + stratum.n_reference) for stratum in ready]
    mine = math.fsum(w * stratum.k_group / stratum.n_group for w, stratum in zip(weights, ready, strict=True))
    theirs = math.fsum(w * stratum.k_reference / stratum.n_reference for w, stratum in zip(weights, ready, strict=True))
    is_worse = log_e >= log_threshold
    tail = sentence.risk(log_threshold) if is_worse else sentence.undecided(log_e, log_threshold)
    seen = f"{group} gets the positive answer {sentence.ratio(mine / theirs)} times as often as {reference}"
    text = f"{seen} in {sentence.requests(n)} requests; {tail}"
    outcome = Outcome.WORSE if is_worse else Outcome.UNDECIDED
    return Verdict(outcome, log_e, log_threshold, n, mine / theirs, None, counts, text)


def combined(log_es: Sequence[float]) -> float:
    """ln of the mean of e-values on the same null, such as the gaps within y = 1 and within y = 0 (equalised odds)."""
    return as_float(log_mean_exp(np.asarray(log_es, np.float64))) if log_es else 0.0


def any_group(
    by_group: Mapping[str, Sequence[Stage]], log_threshold: float, *, tolerated: float = 1.0, event: str = "fails"
) -> Verdict:
    """WORSE when "in every group the candidate has the event at most `tolerated` times as often as stable" is rejected.

    E = mean over groups of the label test's e-values, whatever the dependence between groups; the verdict's effect and
    interval are those of the group with the strongest evidence, which the sentence names. The groups must be those
    fixed before the start. Guarantee: exact, see `label`. The interval is of one group picked for its evidence, so it
    holds at the level of the threshold divided by the number of groups, which is the one used.
    """
    if not by_group:
        raise ValueError("by_group: got no group, expected at least one")
    names = sorted(by_group)
    log_each = log_threshold + math.log(len(names))
    questions = [label.Question(tuple(by_group[g]), Direction.ROLLBACK, tolerated, log_each, event) for g in names]
    verdicts = label.judge(questions)
    log_e = combined([verdict.log_e for verdict in verdicts])
    worst = max(range(len(names)), key=lambda i: verdicts[i].log_e)
    found = verdicts[worst]
    n = sum(verdict.n for verdict in verdicts)
    is_worse = log_e >= log_threshold
    outcome = Outcome.UNKNOWN if n == 0 else Outcome.WORSE if is_worse else Outcome.UNDECIDED
    tail = sentence.risk(log_threshold) if is_worse else sentence.undecided(log_e, log_threshold)
    text = f"of {len(names)} groups most in {names[worst]}: {found.sentence.rsplit('; ', 1)[0]}; {tail}"
    counts = tuple((name, *row) for name, verdict in zip(names, verdicts, strict=True) for row in verdict.counts)
    return Verdict(outcome, log_e, log_threshold, n, found.effect, found.interval, counts, text)


@dataclass(frozen=True, slots=True)
class _Sums:
    """Over the strata past their burn-in: S without tolerance, Q and H, for p_group - scale * p_reference."""

    s: float
    q: float
    h: float

    @classmethod
    def of(cls, strata: Sequence[Stratum], scale: float) -> _Sums:
        s, q, h = [], [], []
        for stratum in strata:
            if not stratum.is_ready:
                continue
            n_g, k_g, n_r, k_r = stratum.n_group, stratum.k_group, stratum.n_reference, stratum.k_reference
            pairs = n_g * n_r / (n_g + n_r)
            p_g, p_r = k_g / n_g, k_r / n_r
            spread = p_g * (1.0 - p_g) / (n_g - 1) + scale * scale * p_r * (1.0 - p_r) / (n_r - 1)
            s.append(pairs * (p_g - scale * p_r))
            q.append(pairs * pairs * spread)
            h.append(pairs)
        return cls(math.fsum(s), math.fsum(q), math.fsum(h))

    def log_e(self, sign: float, tolerance: float, log_threshold: float) -> float:
        if not self.h:
            return 0.0
        rho = mixture_precision(log_threshold, _PLANNED_Q)
        s: Floats = np.array([sign * self.s - tolerance * self.h])
        return as_float(log_normal_mixture(s, np.array([self.q]), rho))

    def interval(self, log_threshold: float) -> tuple[float, float]:
        rho = mixture_precision(log_threshold, _PLANNED_Q)
        reach = math.sqrt((self.q + rho) * (math.log1p(self.q / rho) + 2.0 * max(log_threshold - math.log(2.0), 0.0)))
        return (self.s - reach) / self.h, (self.s + reach) / self.h


def _check_tolerance(tolerance: float) -> None:
    if not 0.0 <= tolerance < 1.0:
        raise ValueError(f"tolerance: got {tolerance!r}, expected a share from 0 to below 1")
