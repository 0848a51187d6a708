"""Does the candidate have an event more often than stable? The test of arm labels, kept per stage.

For events that are counted: an error, an answer slower than a limit, a prediction in a bin, a success. The routing is
the randomisation: under "r times as often" each event is the candidate's with probability q = pi r / (pi r + 1 - pi),
independent of the past, whatever the common rate does. With k_s of n_s events in stage s the candidate's,

    ln E(r0) = ln sum_j w_j exp( sum_s [ k_s ln(r_j / r0) - n_s ln(1 + q_s (r_j / r0 - 1)) ] ),  q_s at r = r0

r0 and r_j in relative risk. `likelihood` has the alternatives r_j and their weights: 24 evenly in ln r from 1.05 to 32
times r0 (for promotion 1/1.05 to 1/8) with weights that fall with the effect, together 15/16, and 24 ever closer to r0
with the rest, so every effect is found in the end.

Source: own composition of the conditional binomial of two counting processes (Lindon & Malek, arXiv 2011.03567) and
discrete mixtures (Waudby-Smith & Ramdas); test and stages are derived in full in tests/evidence/test_label_exact.py.
Guarantee: exact at any sample size and any looks, for any rate common to both arms that changes in any way with time,
and any change of pi, also one that reacts to earlier events, if pi is the probability in force when the request was
routed, arms are drawn request by request (or what is counted are units, see `dispersion`), and only settled requests
are counted (see `watermark`). Rejecting "at most r0" says that r was above r0 at some time, not at all times; a
promote test says the same of its margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gateway.evidence import sentence
from gateway.evidence.counts import Stage, merge, rows
from gateway.evidence.likelihood import (
    ABOVE,
    BELOW,
    Indices,
    Labels,
    estimate,
    limits,
    log_e_by_start,
    log_start_weights,
)
from gateway.evidence.limit import log_e_below
from gateway.evidence.numeric import Bools, Floats, log_sum_exp
from gateway.evidence.verdict import Direction, Outcome, Verdict, outcome_of


@dataclass(frozen=True, slots=True)
class Question:
    """One label test to be judged.

    direction ROLLBACK: H0 "relative risk at most r0" (r0 = 1, or 1.1 to tolerate 10 % more).
    direction PROMOTE: H0 "relative risk at least r0" (the margin: 1.5 or 2).
    """

    stages: tuple[Stage, ...]
    direction: Direction
    r0: float
    log_threshold: float
    event: str = "fails"  # what the candidate does, in the third person: "fails", "is slower than 120 ms"
    negligible: float | None = None  # promotion only: a share of the candidate's requests that is too rare to matter
    min_events: int = 0  # rollback only: fewer events of the candidate decide nothing, whatever the evidence
    phi: float = 1.0  # size of the bursts that events come in: all counts are divided by it, see `dispersion`

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", merge(self.stages))
        if not 1.0 <= self.phi < math.inf:
            raise ValueError(f"phi: got {self.phi!r}, expected a number of 1 or more")
        if not (0.0 < self.r0 < math.inf):
            raise ValueError(f"r0: got {self.r0!r}, expected a relative risk above 0")
        if self.negligible is not None and not 0.0 < self.negligible < 1.0:
            raise ValueError(f"negligible: got {self.negligible!r}, expected a share between 0 and 1, both excluded")
        if self.negligible is not None and self.direction is not Direction.PROMOTE:
            raise ValueError("negligible: got a share for a rollback test, expected None; tolerance is r0 there")


def rollback(
    stages: Sequence[Stage],
    log_threshold: float,
    *,
    tolerated: float = 1.0,
    event: str = "fails",
    min_events: int = 0,
    phi: float = 1.0,
) -> Verdict:
    """WORSE when the evidence against "at most `tolerated` times as often as stable" reaches the threshold.

    The evidence is the mixture, fixed before the start, of the whole history (0.95) and of the history since each later
    stage (0.05 / (i (i+1)) from the stage of index i on), so that a candidate that goes bad late is found soon; a long
    stage may be cut into several, with the same pi, for that purpose. `effect` is the relative risk over the history
    that says most. Guarantee: exact, see the module.
    """
    question = Question(tuple(stages), Direction.ROLLBACK, tolerated, log_threshold, event, None, min_events, phi)
    return judge([question])[0]


def promote(
    stages: Sequence[Stage],
    log_threshold: float,
    *,
    margin: float,
    event: str = "fails",
    negligible: float | None = None,
    phi: float = 1.0,
) -> Verdict:
    """OK when the evidence against "`margin` times as often as stable, or more" reaches the threshold.

    Without events there is no evidence on a ratio, so a service without errors could never promote. With `negligible`,
    H0 is "at least `margin` times as often AND in at least that share of the candidate's requests", and the e-value the
    mean of the label test's and the exact test of the share (`limit.log_e_below`): each alone is valid under H0.
    Guarantee: exact, see the module. There are no restarts: a good week does not promote what was bad before it.
    """
    question = Question(tuple(stages), Direction.PROMOTE, margin, log_threshold, event, negligible, 0, phi)
    return judge([question])[0]


def log_e(stages: Sequence[Stage], r0: float, direction: Direction) -> float:
    """ln E(r0) of the module's formula, over the whole history and without restarts."""
    labels = Labels.from_problems([merge(stages)])
    ratios = ABOVE if direction is Direction.ROLLBACK else BELOW
    return float(log_e_by_start(labels, np.array([math.log(r0)]), ratios[None, :])[0, 0])


def interval(stages: Sequence[Stage], log_threshold: float) -> tuple[float, float]:
    """Confidence sequence of the relative risk: (low, high), 0 and inf where nothing is known.

    All r0 for which neither "at most r0" nor "at least r0" is rejected at the threshold. Guarantee: each end is wrong
    at any time with probability at most exp(-log_threshold), either of them with at most twice that, if the relative
    risk is constant; if not, low is below its largest and high above its smallest value.
    """
    low, high = limits(Labels.from_problems([merge(stages)]), np.array([log_threshold]))
    return math.exp(float(low[0])), math.exp(float(high[0]))


def log_e_with_restarts(labels: Labels, log_r0: Floats, above: Bools, restarts: Bools) -> tuple[Floats, Indices]:
    """ln E of each problem, and the row of the stage from which on the evidence says most.

    above: H0 "at most r0", else "at least r0". restarts: mix in the evidence since each later stage.
    """
    by_start = log_e_by_start(labels, log_r0, np.where(above[:, None], ABOVE, BELOW)) + _start_weights(labels, restarts)
    return log_sum_exp(by_start, axis=0), np.argmax(by_start, axis=0)


def judge(questions: Sequence[Question]) -> list[Verdict]:
    """The verdicts of many label tests, computed together: fifty cost little more than one.

    Each is what `rollback` or `promote` gives for it alone, bit by bit.
    """
    findings = measure(questions, [question.log_threshold for question in questions])
    return [conclude(question, finding) for question, finding in zip(questions, findings, strict=True)]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a label test found, before it is weighed: see `Verdict` for the fields."""

    log_e: float
    effect: float  # NaN: no estimate
    interval: tuple[float, float]
    since: int | None  # index of the stage since which the evidence says most; None: the whole history


def measure(questions: Sequence[Question], log_thresholds: Sequence[float]) -> list[Finding]:
    """The evidence of each question, and the relative risk over the history that says most, with its interval at the
    threshold that this history would have to reach by itself: ln(1/alpha) less the ln of its weight in the mixture.
    """
    if not questions:
        return []
    labels, log_r0, above = arrays(questions)
    log_es, starts = log_e_with_restarts(labels, log_r0, above, restarts=above)
    start_weight = np.take_along_axis(_start_weights(labels, above), starts[None, :], axis=0)[0]
    chosen = labels.since(starts)
    effects = np.exp(estimate(chosen))
    low, high = (np.exp(end) for end in limits(chosen, np.array(log_thresholds) - start_weight))
    return [
        Finding(float(log_es[i]), float(effects[i]), (float(low[i]), float(high[i])), since)
        for i, since in enumerate(_first_stages(labels, starts))
    ]


def arrays(questions: Sequence[Question]) -> tuple[Labels, Floats, Bools]:
    """Labels, ln r0 and "H0 is at most r0" of each question."""
    labels = Labels.from_problems([question.stages for question in questions], [question.phi for question in questions])
    log_r0 = np.array([math.log(question.r0) for question in questions])
    return labels, log_r0, np.array([question.direction is Direction.ROLLBACK for question in questions], bool)


def _start_weights(labels: Labels, restarts: Bools) -> Floats:
    return np.where(restarts, log_start_weights(labels), log_start_weights(labels, restarts=False))


def _first_stages(labels: Labels, starts: Indices) -> list[int | None]:
    """Index of the stage since which the evidence is, or None for the whole history."""
    return [int(labels.index[start, problem]) if start else None for problem, start in enumerate(starts)]


def conclude(question: Question, finding: Finding) -> Verdict:
    """The verdict that a finding gives: outcome, counts and sentence."""
    stages, direction = question.stages, question.direction
    log_e, effect, span, since = finding.log_e, finding.effect, finding.interval, finding.since
    n = sum(stage.n for stage in stages)
    by_share = False
    if question.negligible is not None:
        n_candidate, k_candidate = sum(s.n_candidate for s in stages), sum(s.k_candidate for s in stages)
        of_share = log_e_below(k_candidate / question.phi, n_candidate / question.phi, question.negligible)
        by_share = of_share > log_e
        log_e = float(np.logaddexp(log_e, of_share)) - math.log(2.0)
    outcome = outcome_of(direction, log_e, question.log_threshold)
    if n == 0:
        outcome = Outcome.UNKNOWN
    elif outcome is Outcome.WORSE:
        if sum(stage.k_candidate for stage in stages) < question.min_events:
            outcome = Outcome.UNDECIDED
        span = (max(span[0], question.r0), max(span[1], question.r0))
    elif outcome is Outcome.OK and not by_share:
        span = (min(span[0], question.r0), min(span[1], question.r0))
    return Verdict(
        outcome=outcome,
        log_e=log_e,
        log_threshold=question.log_threshold,
        n=n,
        effect=None if math.isnan(effect) else effect,
        interval=span,
        counts=rows(stages),
        sentence=_sentence(question, outcome, log_e, effect, span, n, since, by_share),
    )


def _sentence(
    question: Question,
    outcome: Outcome,
    log_e: float,
    effect: float,
    span: tuple[float, float],
    n: int,
    since: int | None,
    by_share: bool,
) -> str:
    if outcome is Outcome.UNKNOWN:
        return "no settled requests yet"
    scope = f"since stage {since}, " if since is not None and outcome is Outcome.WORSE else ""
    seen = _comparison(question, effect, span, n, since if outcome is Outcome.WORSE else None)
    if outcome is Outcome.WORSE:
        return f"{scope}{seen}; {sentence.risk(question.log_threshold)}"
    if outcome is Outcome.OK:
        of = sentence.risk(question.log_threshold, "a false promotion")
        if by_share and question.negligible is not None:
            return f"{seen}; in less than {sentence.percent(question.negligible)} of its requests; {of}"
        return f"{seen}, less than the margin of {sentence.ratio(question.r0)}; {of}"
    return f"{seen}; {sentence.undecided(log_e, question.log_threshold)}"


def _comparison(question: Question, effect: float, span: tuple[float, float], n: int, since: int | None) -> str:
    stages = [stage for stage in question.stages if since is None or stage.index >= since]
    n = sum(stage.n for stage in stages) if since is not None else n
    if math.isnan(effect):
        return f"no {sentence.quoted(question.event)} in either arm in {sentence.requests(n)} requests"
    if math.isinf(effect):
        k, of = sum(stage.k_candidate for stage in stages), sum(stage.n_candidate for stage in stages)
        seen = f"candidate {question.event} in {sentence.requests(k)} of {sentence.requests(of)} requests"
        return f"{seen}, stable in none of {sentence.requests(n - of)}"
    times = f"{sentence.ratio(effect)} times as often {sentence.span(*span)}"
    return f"candidate {question.event} {times} as stable in {sentence.requests(n)} requests"
