"""Is the candidate slower? Label tests at frozen thresholds, averaged.

Thresholds are frozen before the requests that they count (stable's p50, p90, p95, p99, p99.9, or an objective). Each
counts one event, "slower than x_k", and is tested by `label`; a timeout or an error is slower than all of them.

    rollback:  E = mean_k E_k      H0 "at no threshold is the relative risk above the tolerated"
    promote:   E = min_k E_k       H0 "at some threshold the relative risk is at least the margin"

Of the candidate the event may be "slower than y_k", y_k > x_k. If it takes at most g(x) where stable takes x, with g
rising, then P(candidate > g(x_k)) <= P(stable > x_k), whatever the laws are and however they change: with y_k = g(x_k)
a tolerance in time is the relative risk 1, and nothing needs to be known of stable's law. That is how a guardrail has
"1.1 times as slow" and "a millisecond is nothing": g(x) = max(1.1 x, x + 1 ms).

Source: own composition. The mean of e-processes is an e-process under any dependence; the minimum is one under each
single null, so under their union (Berger 1982, intersection-union test). Neither costs a share of the risk. Thresholds
may change from one stage to the next, if what changes them was known before: an event is the candidate's with the same
probability whatever its threshold is.
Guarantee: exact, as `label`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from gateway.evidence import label
from gateway.evidence.counts import BinnedStage, merge
from gateway.evidence.label import Question
from gateway.evidence.likelihood import Labels
from gateway.evidence.numeric import Floats, as_float, log_mean_exp
from gateway.evidence.verdict import Direction, Verdict


@dataclass(frozen=True, slots=True)
class LatencyQuestion:
    """One latency guardrail: K thresholds cut the requests of a stage into K + 1 bins, fastest first."""

    stages: tuple[BinnedStage, ...]
    thresholds_us: tuple[int, ...]  # ascending
    direction: Direction
    log_threshold: float
    r0: tuple[float, ...]  # tolerated relative risk, or margin, of each threshold
    phi: float = 1.0  # size of the bursts that slow answers come in, see `dispersion`
    limits_us: tuple[int, ...] = ()  # above which the candidate's answers were counted; default: the thresholds

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", merge(self.stages))
        n = len(self.thresholds_us)
        if not n or any(a >= b for a, b in zip(self.thresholds_us, self.thresholds_us[1:], strict=False)):
            raise ValueError(f"thresholds_us: got {self.thresholds_us!r}, expected at least one, in ascending order")
        if self.limits_us and len(self.limits_us) != n:
            raise ValueError(f"limits_us: got {len(self.limits_us)} values, expected one for each of {n} thresholds")
        if len(self.r0) != n:
            raise ValueError(f"r0: got {len(self.r0)} values, expected one for each of {n} thresholds")
        for stage in self.stages:
            if len(stage.stable) != n + 1:
                raise ValueError(f"stages: got {len(stage.stable)} bins, expected {n + 1} for {n} thresholds")

    def at(self, threshold: int) -> Question:
        """The label test of one threshold."""
        event = f"is slower than {duration(self.thresholds_us[threshold])}"
        if self.limits_us:
            limit = duration(self.limits_us[threshold])
            event = f"is slower than {limit} (stable: than {duration(self.thresholds_us[threshold])})"
        stages = tuple(stage.above(threshold + 1) for stage in self.stages)
        return Question(stages, self.direction, self.r0[threshold], self.log_threshold, event, phi=self.phi)


def rollback(
    stages: Sequence[BinnedStage],
    thresholds_us: Sequence[int],
    log_threshold: float,
    *,
    tolerated: float | Sequence[float] = 1.0,
) -> Verdict:
    """WORSE when the average evidence over the thresholds says "slower than tolerated more often than stable".

    `effect` and `interval` are the relative risk at the threshold that says most; the interval pays for that choice.
    """
    return _ask(stages, thresholds_us, log_threshold, Direction.ROLLBACK, tolerated)


def promote(
    stages: Sequence[BinnedStage],
    thresholds_us: Sequence[int],
    log_threshold: float,
    *,
    margin: float | Sequence[float],
) -> Verdict:
    """OK when at each threshold the evidence excludes the margin: a relative risk, or one for each threshold.

    A single margin is rarely right: at the median no candidate can exceed twice as often.
    """
    return _ask(stages, thresholds_us, log_threshold, Direction.PROMOTE, margin)


def judge(questions: Sequence[LatencyQuestion]) -> list[Verdict]:
    """The verdicts of many latency guardrails, computed together; each as if alone, bit by bit."""
    if not questions:
        return []
    labels = Labels.from_events([(q.stages, *_slower(q)) for q in questions], [q.phi for q in questions])
    log_r0 = np.log([r0 for q in questions for r0 in q.r0])
    above = np.array([q.direction is Direction.ROLLBACK for q in questions for _ in q.r0], bool)
    each, _ = label.log_e_with_restarts(labels, log_r0, above, restarts=above)
    log_es, chosen, at = [], [], 0
    for question in questions:
        of_thresholds = each[at : at + len(question.r0)]
        at += len(question.r0)
        if question.direction is Direction.ROLLBACK:
            log_es.append(as_float(log_mean_exp(of_thresholds)))
            chosen.append(question.at(int(np.argmax(of_thresholds))))
        else:
            log_es.append(as_float(np.min(of_thresholds)))
            chosen.append(question.at(int(np.argmin(of_thresholds))))
    # the threshold shown was chosen by the data: its interval is at alpha / K
    levels = [q.log_threshold + math.log(len(q.r0)) for q in questions]
    verdicts = []
    for question, shown, finding, log_e in zip(questions, chosen, label.measure(chosen, levels), log_es, strict=True):
        verdict = label.conclude(shown, replace(finding, log_e=log_e))
        counts = tuple((s.index, s.pi, *s.stable, *s.candidate) for s in question.stages)
        verdicts.append(replace(verdict, counts=counts))
    return verdicts


def duration(us: float) -> str:
    """Microseconds for people: 850 us, 120 ms, 1.5 s."""
    for size, unit in ((1e6, "s"), (1e3, "ms")):
        if us >= size:
            return f"{us / size:.4g} {unit}"
    return f"{us:.4g} us"


def _slower(question: LatencyQuestion) -> tuple[Floats, Floats]:
    """Requests above each threshold, of both arms and of the candidate: (stages, thresholds)."""
    shape = (len(question.stages), len(question.r0) + 1)
    candidate = np.array([stage.candidate for stage in question.stages], np.float64).reshape(shape)
    both = candidate + np.array([stage.stable for stage in question.stages], np.float64).reshape(shape)
    return both[:, ::-1].cumsum(axis=1)[:, -2::-1], candidate[:, ::-1].cumsum(axis=1)[:, -2::-1]


def _ask(
    stages: Sequence[BinnedStage],
    thresholds_us: Sequence[int],
    log_threshold: float,
    direction: Direction,
    r0: float | Sequence[float],
) -> Verdict:
    risks = tuple(r0) if isinstance(r0, Sequence) else (float(r0),) * len(thresholds_us)
    return judge([LatencyQuestion(tuple(stages), tuple(thresholds_us), direction, log_threshold, risks)])[0]
