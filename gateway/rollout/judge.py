"""Asks gateway.evidence about each guardrail: is the candidate worse than tolerated, is it shown good enough?

Two tests, two risks: `rollback` has its share of the plan's risk of going back for nothing, `promote` the whole risk of
promoting what is worse, since all that are required must pass. Where the candidate answers everything there is no arm
to compare with; then its shares are held against the frozen baseline, at the margin, and that evidence is averaged with
the comparison's (a mean of e-values is one). Which of the two forms a plan has is fixed before the start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from gateway.evidence import betting, distribution, fairness, label, latency, limit, mean, paired, ratio, sentence
from gateway.evidence.counts import BinnedStage
from gateway.evidence.numeric import as_float, log_mean_exp
from gateway.evidence.verdict import Direction, Outcome, Verdict, log_threshold_of, outcome_of
from gateway.rollout import guardrail as rails
from gateway.rollout.baseline import Baseline, LatencyBaseline
from gateway.rollout.evidence import Evidence, margin_key
from gateway.rollout.plan import SPLIT_RISK, Plan

LEAST_MARGIN = 1.2
"""A threshold that a candidate like stable exceeds hardly more often than its limit cannot show that it is like it."""

Pair = tuple[Verdict | None, Verdict | None]
"""Rollback and promote; None: there is no such test."""


@dataclass(frozen=True, slots=True)
class GuardrailVerdict:
    name: str
    kind: str
    action: rails.Action
    required: bool
    rollback: Verdict | None
    promote: Verdict | None
    fault: str = ""  # why it could not be judged, other than for want of data

    @property
    def is_worse(self) -> bool:
        return self.rollback is not None and self.rollback.outcome is Outcome.WORSE

    @property
    def is_shown_good(self) -> bool:
        return self.promote is not None and self.promote.outcome is Outcome.OK

    @property
    def is_known(self) -> bool:
        return self.rollback is not None and self.rollback.outcome is not Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class Judgement:
    guardrails: tuple[GuardrailVerdict, ...]
    split: Verdict

    @property
    def is_split_broken(self) -> bool:
        return self.split.log_e >= self.split.log_threshold

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(f"{verdict.name}: {verdict.fault}" for verdict in self.guardrails if verdict.fault)


def judge(plan: Plan, evidence: Evidence, baseline: Baseline, *, width: float = 1.0, late: bool = False) -> Judgement:
    """`width`: how many times as wide the margins are at this step. `late`: only what reads values that come late."""
    budget = plan.budget()
    split = ratio.check(evidence.split, log_threshold_of(SPLIT_RISK))
    is_broken = split.log_e >= split.log_threshold
    verdicts = []
    for name, guardrail in plan.guardrails.items():
        if late and not guardrail.is_late:
            continue
        asked = _Asked(plan, evidence, baseline, name, budget.log_threshold(name), width)
        fault = ""
        try:
            worse, good = _TESTS[guardrail.kind](asked, guardrail)
        except ValueError as error:  # counts that cannot be: a defect of who counts, and no reason to go anywhere
            fault = str(error)
            worse, good = asked.unknown(f"cannot be judged: {fault}"), None
        if is_broken and guardrail.compares_arms:
            worse, good = (verdict and ratio.freeze(verdict, split) for verdict in (worse, good))
        is_needed = guardrail.required and (guardrail.compares_arms or plan.does("shadow"))
        verdicts.append(GuardrailVerdict(name, guardrail.kind, guardrail.action, is_needed, worse, good, fault))
    return Judgement(tuple(verdicts), split)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One guardrail's question: where its counts are, and what evidence it must reach."""

    plan: Plan
    evidence: Evidence
    baseline: Baseline
    name: str
    log_threshold: float
    width: float

    @property
    def log_promote(self) -> float:
        return log_threshold_of(self.plan.risk.promote)

    def widened(self, margin: float) -> float:
        """A factor's excess over 1, so many times as wide."""
        return 1.0 + (margin - 1.0) * self.width

    def unknown(self, text: str) -> Verdict:
        return Verdict(Outcome.UNKNOWN, 0.0, self.log_threshold, 0, None, None, (), text)


def _errors(asked: _Asked, rail: rails.Errors) -> Pair:
    stages, phi = asked.evidence.labels.get(asked.name, ()), asked.baseline.phi
    margin, negligible = asked.widened(rail.margin), min(rail.negligible * asked.width, 0.5)
    ask_worse = label.Question(stages, Direction.ROLLBACK, rail.tolerated, asked.log_threshold, phi=phi)
    ask_good = label.Question(stages, Direction.PROMOTE, margin, asked.log_promote, negligible=negligible, phi=phi)
    worse, good = label.judge([ask_worse, ask_good])  # together they cost what one costs
    if not asked.plan.bakes_alone:
        return worse, good
    alone = [stage for stage in stages if stage.pi == 1.0]
    k, n = sum(stage.k_candidate for stage in alone), sum(stage.n_candidate for stage in alone)
    most = min(max(rail.negligible, asked.baseline.error_share * rail.margin), 0.9)
    seen = f"candidate fails in {sentence.requests(k)} of {sentence.requests(n)} requests with no stable beside it"
    text = f"{seen}, limit {sentence.percent(most)}"
    return (
        _averaged(worse, Direction.ROLLBACK, limit.log_e_above(k / phi, n / phi, most), n, text),
        _averaged(good, Direction.PROMOTE, limit.log_e_below(k / phi, n / phi, most), n, text),
    )


def _broken(asked: _Asked, rail: rails.Broken) -> Pair:
    stages = asked.evidence.labels.get(asked.name, ())
    event = "gives a broken answer"
    return label.rollback(stages, asked.log_threshold, tolerated=rail.tolerated, event=event), None


def _latency(asked: _Asked, rail: rails.Latency) -> Pair:
    now = asked.baseline.latency_now
    if now is None:
        text = "stable had too few answers before the start for thresholds of its latency"
        return asked.unknown(text), replace(asked.unknown(text), log_threshold=asked.log_promote)
    phi, bins = asked.baseline.phi, asked.evidence.bins
    shown = tellable(now, rail, now.limits(asked.widened(rail.margin), rail.floor_us))
    of_rollback = now.limits(rail.tolerated, rail.floor_us)
    of_margin = now.limits(asked.widened(rail.margin), rail.floor_us)
    worse, good = latency.judge(
        [
            latency.LatencyQuestion(
                bins.get(asked.name, ()),
                now.thresholds_us,
                Direction.ROLLBACK,
                asked.log_threshold,
                (1.0,) * len(of_rollback),
                phi,
                of_rollback,
            ),
            latency.LatencyQuestion(
                tuple(_at(stage, shown) for stage in bins.get(margin_key(asked.name, asked.width), ())),
                tuple(now.thresholds_us[i] for i in shown),
                Direction.PROMOTE,
                asked.log_promote,
                (1.0,) * len(shown),
                phi,
                tuple(of_margin[i] for i in shown),
            ),
        ]
    )
    if not asked.plan.bakes_alone:
        return worse, good
    alone = [stage for stage in bins.get(margin_key(asked.name, 1.0), ()) if stage.pi == 1.0]
    n = sum(stage.n_candidate for stage in alone)
    slower = [sum(stage.above(i + 1).k_candidate for stage in alone) for i in range(len(now.quantiles))]
    most = now.shares()
    above = [limit.log_e_above(k / phi, n / phi, p) for k, p in zip(slower, most, strict=True)]
    below = [limit.log_e_below(slower[i] / phi, n / phi, most[i]) for i in shown]
    text = f"candidate, {sentence.requests(n)} requests with no stable beside it, against what stable took before"
    return (
        _averaged(worse, Direction.ROLLBACK, as_float(log_mean_exp(np.array(above))), n, text),
        _averaged(good, Direction.PROMOTE, min(below), n, text),
    )


def tellable(now: LatencyBaseline, rail: rails.Latency, limits: Sequence[int]) -> list[int]:
    """The thresholds at which a candidate like stable shows itself: where answers lie between it and its limit."""
    shares = list(zip(now.shares(), map(now.share_above, limits), strict=True))
    found = [
        i for i, (own, beyond) in enumerate(shares) if now.quantiles[i] <= rail.shown and own >= LEAST_MARGIN * beyond
    ]
    return found or [max(range(len(shares)), key=lambda i: shares[i][0] / shares[i][1])]


def _distribution(asked: _Asked, rail: rails.Distribution) -> Pair:
    stages = asked.evidence.bins.get(asked.name, ())
    return distribution.rollback(stages, asked.log_threshold, tolerated=rail.tolerated), None


def _disagreement(asked: _Asked, rail: rails.Disagreement) -> Pair:
    stages = asked.evidence.pairs.get(asked.name, ())
    return (
        paired.disagreement(stages, asked.log_threshold, limit=rail.limit),
        paired.disagreement(stages, asked.log_promote, limit=rail.limit, direction=Direction.PROMOTE),
    )


def _correctness(asked: _Asked, rail: rails.Correctness) -> Pair:
    stages = asked.evidence.pairs.get(asked.name, ())
    return (
        paired.correctness(stages, asked.log_threshold, loss=rail.loss),
        paired.correctness(stages, asked.log_promote, loss=rail.loss, direction=Direction.PROMOTE),
    )


def _metric(asked: _Asked, rail: rails.Metric) -> Pair:
    stages = asked.evidence.bins.get(asked.name, ())
    metric = betting.Metric(rail.centre, rail.low, rail.high, rail.better == "higher", asked.name)
    margin = min(rail.limit * asked.width, 0.999 * metric.span)

    def worse(*, with_interval: bool) -> Verdict:
        return betting.rollback(
            stages, metric, asked.log_threshold, tolerated=rail.tolerated, with_interval=with_interval
        )

    found = worse(with_interval=False)
    if found.is_decisive:  # the interval costs milliseconds, and is read when something is said
        found = worse(with_interval=True)
    return found, betting.promote(stages, metric, asked.log_promote, margin=margin, with_interval=False)


def _cost(asked: _Asked, rail: rails.Cost) -> Pair:
    if asked.baseline.cost is None:
        return asked.unknown("stable had too few runs before the start to know its cost"), None
    metric = asked.baseline.cost.metric()
    stages = asked.evidence.moments.get(asked.name, ())
    return mean.rollback(stages, metric, asked.log_threshold, tolerated=rail.tolerated * metric.centre), None


def _fairness(asked: _Asked, rail: rails.Fairness) -> Pair:
    found = asked.evidence.groups.get(asked.name, {})
    by_group = {group: found.get(group, ()) for group in rail.groups}
    return fairness.any_group(by_group, asked.log_threshold, tolerated=rail.tolerated, event=rail.event), None


_TESTS: dict[str, Callable[[_Asked, Any], Pair]] = {
    "errors": _errors,
    "broken": _broken,
    "latency": _latency,
    "distribution": _distribution,
    "disagreement": _disagreement,
    "correctness": _correctness,
    "metric": _metric,
    "cost": _cost,
    "fairness": _fairness,
}


def _at(stage: BinnedStage, thresholds: Sequence[int]) -> BinnedStage:
    """The same requests in the bins that these thresholds alone would cut."""
    cuts = [0, *(i + 1 for i in thresholds), len(stage.stable)]
    ends = list(pairwise(cuts))
    return BinnedStage(
        stage.index,
        stage.pi,
        tuple(sum(stage.stable[a:b]) for a, b in ends),
        tuple(sum(stage.candidate[a:b]) for a, b in ends),
    )


def _averaged(verdict: Verdict, direction: Direction, log_e: float, n: int, text: str) -> Verdict:
    """The verdict with the evidence of the candidate alone averaged in; the sentence is of what says more."""
    both = float(np.logaddexp(verdict.log_e, log_e)) - math.log(2.0)
    outcome = outcome_of(direction, both, verdict.log_threshold) if verdict.n or n else Outcome.UNKNOWN
    said = verdict.sentence
    if n and (log_e > verdict.log_e or verdict.outcome is Outcome.UNKNOWN):
        of = "a false alarm" if direction is Direction.ROLLBACK else "a false promotion"
        decided = outcome in (Outcome.WORSE, Outcome.OK)
        end = sentence.risk(verdict.log_threshold, of) if decided else sentence.undecided(both, verdict.log_threshold)
        said = f"{text}; {end}"
    return replace(verdict, outcome=outcome, log_e=both, sentence=said)
