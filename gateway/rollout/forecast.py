"""What a plan says it will do, before it does anything, and about how long that takes at the traffic there is."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.evidence import sentence
from gateway.evidence.plan import Expectation, Goal, expect, expect_pairs, span_of_time
from gateway.evidence.verdict import Direction, log_threshold_of
from gateway.rollout import guardrail as rails
from gateway.rollout.baseline import Baseline
from gateway.rollout.judge import tellable
from gateway.rollout.plan import Plan
from gateway.routing.route import SHARE_UNIT

US = 1_000_000.0


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stage that the plan goes through."""

    name: str
    units: int  # the candidate's weight, of SHARE_UNIT
    least_s: float
    typical_s: float  # with a candidate as good as stable
    careful_s: float
    waits_for: str  # what takes longest


def stretches(plan: Plan, baseline: Baseline) -> tuple[Stretch, ...]:
    """Each as if it began without evidence, which is longer than it will be."""
    rate, found = baseline.requests_per_s, []
    log_promote = log_threshold_of(plan.risk.promote)
    if plan.does("shadow"):
        pairs_per_s = rate * plan.shadow.percent / 100.0
        each = [
            expect_pairs(
                name, log_promote, pairs_per_s, limit=rail.limit, share=rail.limit / 4.0, direction=Direction.PROMOTE
            )
            for name, rail in plan.guardrails.items()
            if isinstance(rail, rails.Disagreement) and rail.required
        ]
        least = plan.shadow.min_time_us / US
        found.append(_stretch("shadow", 0, least, plan.shadow.min_pairs, pairs_per_s, each))
    if plan.does("canary"):
        for i, step in enumerate(plan.steps):
            pi = step.units / SHARE_UNIT
            each = [expect(goal, pi, rate) for goal in _goals(plan, baseline, plan.width(i), log_promote)]
            least = step.min_time_us / US
            found.append(_stretch(f"step {i + 1}", step.units, least, step.min_requests, rate * min(pi, 1 - pi), each))
    pi = plan.bake_units / SHARE_UNIT
    each = [] if pi == 1.0 else [expect(goal, pi, rate) for goal in _goals(plan, baseline, 1.0, log_promote)]
    arm = rate if pi == 1.0 else rate * min(pi, 1.0 - pi)
    found.append(_stretch("bake", plan.bake_units, plan.bake.time_us / US, plan.bake.min_requests, arm, each))
    return tuple(found)


def describe(plan: Plan, baseline: Baseline) -> str:
    """For who is about to start it."""
    return "\n".join(_lines(plan, baseline))


def _lines(plan: Plan, baseline: Baseline) -> Iterator[str]:
    since = f"version {plan.stable}" if plan.stable else "the version that answers now"
    yield f"{plan.model}: version {plan.candidate} in place of {since}, by {' then '.join(plan.strategy)}"
    if plan.mode == "observe":
        yield "observes only: decides and records, touches nothing"
    if not baseline.requests_per_s:
        yield "nobody asks the model now, and without requests nothing is shown: with traffic there are durations here"
    else:
        yield f"at {sentence.number(baseline.requests_per_s)} requests/s:"
    found = stretches(plan, baseline)
    for stretch in found:
        share = f"{stretch.units * 100 / SHARE_UNIT:g} %" if stretch.units else "copies only"
        typical, careful = span_of_time(stretch.typical_s), span_of_time(stretch.careful_s)
        yield f"  {stretch.name:<8} {share:<11} about {typical}, with bad luck {careful} ({stretch.waits_for})"
    total, careful_total = (math.fsum(getattr(s, field) for s in found) for field in ("typical_s", "careful_s"))
    yield f"in all at most about {span_of_time(total)}, with bad luck {span_of_time(careful_total)}"
    for gate in plan.gates_in_force():
        yield f"waits for an operator at the gate {gate!r}"
    yield f"taken back for nothing with a risk of {sentence.percent(plan.risk.rollback)}, shared by:"
    shares = dict(plan.budget().weights)
    for name, rail in plan.guardrails.items():
        needed = ""
        if rail.required and (rail.compares_arms or plan.does("shadow")):
            needed = ", must be shown good" if rail.compares_arms else ", must be shown good in shadow"
        yield f"  {name:<14} {rail.kind:<13} {rail.action:<8} {sentence.percent(shares[name]):>5} of the risk{needed}"
    yield f"promoted although worse by a margin with a risk of {sentence.percent(plan.risk.promote)}"
    if plan.bakes_alone:
        yield "bakes without stable beside it: judged against what stable was before, which an incident can mislead"
    if plan.does("canary") and math.isinf(total) and baseline.requests_per_s:
        yield "it would not come to an end: widen a margin, or take a step with more traffic"
    yield f"after the promotion the version before is kept for {span_of_time(plan.retain_us / US)}"


def _goals(plan: Plan, baseline: Baseline, width: float, log_promote: float) -> list[Goal]:
    goals = []
    for name, rail in plan.guardrails.items():
        if isinstance(rail, rails.Errors) and rail.required:
            share, margin = baseline.error_share if baseline.n else 0.0, 1.0 + (rail.margin - 1.0) * width
            share = 0.0 if not baseline.n_errors else share
            negligible = min(rail.negligible * width, 0.5)
            promote = Direction.PROMOTE
            goals.append(Goal(name, promote, (share,), (1.0,), (margin,), log_promote, baseline.phi, negligible))
        elif isinstance(rail, rails.Latency) and rail.required and baseline.latency is not None:
            frozen = baseline.latency
            limits = frozen.limits(1.0 + (rail.margin - 1.0) * width, rail.floor_us)
            rates, kept = frozen.shares(), tellable(frozen, rail, limits)
            goals.append(
                Goal(
                    name,
                    Direction.PROMOTE,
                    tuple(rates[i] for i in kept),
                    tuple(frozen.share_above(limits[i]) / rates[i] for i in kept),
                    (1.0,) * len(kept),
                    log_promote,
                    baseline.phi,
                )
            )
    return goals


def _stretch(
    name: str, units: int, least_s: float, least_requests: int, arm_per_s: float, each: list[Expectation]
) -> Stretch:
    """The longest of its least time, its least requests, and what its guardrails need."""
    of_requests_s = least_requests / arm_per_s if arm_per_s else math.inf
    causes = [(least_s, least_s, "its least time"), (of_requests_s, of_requests_s, "its least requests")]
    causes += [(one.typical_s, one.careful_s, one.name) for one in each]
    longest = max(causes, key=lambda cause: (cause[0], cause[2]))
    return Stretch(name, units, least_s, longest[0], max(careful for _, careful, _ in causes), f"for {longest[2]}")
