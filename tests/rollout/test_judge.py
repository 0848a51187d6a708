"""Each kind of guardrail asks the test that is meant for it, with its own tolerance, margin and share of the risk."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.mean import Moments, MomentStage
from gateway.evidence.paired import PairStage
from gateway.evidence.verdict import Outcome
from gateway.rollout.baseline import Baseline, CostBaseline, LatencyBaseline, freeze_latency
from gateway.rollout.evidence import Evidence
from gateway.rollout.judge import GuardrailVerdict, judge
from tests.support.rollouts import EDGES_US, Version, World, latencies, latency_baseline, plan

BASELINE = Baseline(n=10_000, n_errors=10, latency=latency_baseline(), cost=CostBaseline(100.0, 50.0))
PI = 0.5
N = 20_000


def ask(name: str, guardrail: dict[str, object], evidence: Evidence, **changes: object) -> GuardrailVerdict:
    rules = plan(guardrails={name: guardrail}, **changes)
    return next(verdict for verdict in judge(rules, evidence, BASELINE).guardrails if verdict.name == name)


def labels(failed: int) -> Evidence:
    return Evidence(labels={"x": (Stage(1, PI, N, N, 200, failed),)})


def sales(sold: int) -> Evidence:
    return Evidence(bins={"x": (BinnedStage(1, PI, (N - 2000, 2000), (N - sold, sold)),)})


def cost(total: int) -> Evidence:
    """z in thousandths of the deviation, 0.05 us: `total` us more or less for each of the candidate's rows."""
    arm = Moments(N, 0, N * 1_000_000)
    shift = total * 20
    return Evidence(moments={"x": (MomentStage(1, arm, Moments(N, N * shift, N * (1_000_000 + shift * shift))),)})


def pairs(differ: int) -> Evidence:
    return Evidence(pairs={"x": (PairStage(1, N, differ, N, differ // 2, 100),)})


def groups(refused: int) -> Evidence:
    fair, other = Stage(1, PI, N, N, 2000, 2000), Stage(1, PI, N, N, 2000, refused)
    return Evidence(groups={"x": {"young": (other,), "old": (fair,)}})


def outputs(high: int) -> Evidence:
    return Evidence(bins={"x": (BinnedStage(1, PI, (N - 5000, 5000), (N - high, high)),)})


METRIC = {"kind": "metric", "centre": 0.1, "tolerated": 0.005, "margin": 0.02}


@pytest.mark.parametrize(
    ("guardrail", "worse", "same", "says"),
    [
        ({"kind": "errors"}, labels(400), labels(200), "fails 2.0"),
        ({"kind": "broken"}, labels(400), labels(200), "gives a broken answer"),
        ({"kind": "distribution"}, outputs(10_000), outputs(5100), "in bin 1 or above"),
        ({"kind": "disagreement", "limit": 0.1}, pairs(4000), pairs(1000), "limit 10 %"),
        ({"kind": "correctness", "loss": 0.01}, pairs(4000), pairs(200), "of accuracy"),
        (METRIC, sales(1500), sales(2000), "candidate's x is 0.025"),
        ({**METRIC, "better": "lower"}, sales(2500), sales(2000), "above stable's"),
        ({"kind": "cost"}, cost(80), cost(20), "execution time per row in us"),
        ({"kind": "fairness", "groups": ["young", "old"]}, groups(4000), groups(2000), "most in young"),
    ],
)
def test_a_worse_candidate_is_found_and_an_equal_one_is_not(
    guardrail: dict[str, object], worse: Evidence, same: Evidence, says: str
) -> None:
    found, healthy = ask("x", guardrail, worse), ask("x", guardrail, same)
    assert found.rollback is not None
    assert (found.is_worse, healthy.is_worse) == (True, False)
    assert says in found.rollback.sentence


@pytest.mark.parametrize(
    ("guardrail", "good", "poor"),
    [
        ({"kind": "errors"}, labels(200), labels(390)),
        ({"kind": "disagreement", "limit": 0.1}, pairs(1000), pairs(1990)),
        ({"kind": "correctness", "loss": 0.01}, pairs(200), pairs(600)),
        (METRIC, sales(2000), sales(1620)),
    ],
)
def test_a_candidate_is_shown_good_below_the_margin_only(
    guardrail: dict[str, object], good: Evidence, poor: Evidence
) -> None:
    assert ask("x", guardrail, good).is_shown_good
    assert not ask("x", guardrail, poor).is_shown_good


def test_each_guardrail_needs_the_evidence_of_its_share_of_the_risk() -> None:
    rules = plan()
    verdicts = {verdict.name: verdict for verdict in judge(rules, Evidence(), BASELINE).guardrails}
    for name, share in rules.budget().weights:
        if name != "hard":
            rollback = verdicts[name].rollback
            assert rollback is not None
            assert rollback.log_threshold == pytest.approx(-math.log(0.01 * share))
            assert rollback.outcome in (Outcome.UNKNOWN, Outcome.UNDECIDED)


def test_wider_margins_show_a_candidate_good_sooner_and_blame_no_later() -> None:
    evidence = Evidence(labels={"errors": (Stage(1, PI, 1500, 1500, 30, 33),)})
    narrow, wide = (judge(plan(), evidence, BASELINE, width=width).guardrails[0] for width in (1.0, 3.0))
    assert (narrow.is_shown_good, wide.is_shown_good) == (False, True)
    assert narrow.rollback == wide.rollback


def test_latency_without_a_baseline_is_unknown_and_not_good() -> None:
    verdict = next(v for v in judge(plan(), Evidence(), Baseline()).guardrails if v.name == "latency")
    assert (verdict.is_known, verdict.is_shown_good, verdict.fault) == (False, False, "")


def test_the_order_in_which_workers_report_changes_no_bit_of_a_verdict() -> None:
    worlds = [World(plan(), Version(failing=0.02), Version(failing=0.01), seed=seed) for seed in range(4)]
    parts = [world.run(8).evidence for world in worlds]
    baseline = worlds[0].baseline
    assert all(part.labels for part in parts)
    found = set()
    for seed in range(4):
        random.Random(seed).shuffle(parts)
        total = sum(parts[1:], parts[0])
        found.add(repr(judge(plan(), total, baseline)))
    assert len(found) == 1


def test_alone_a_candidate_is_held_against_what_stable_was() -> None:
    alone = {"strategy": "blue_green"}

    def errors(failed: int, n: int = 5000) -> GuardrailVerdict:
        stage = Stage(1, 1.0, 0, n, 0, failed)
        return judge(plan(**alone), Evidence(labels={"errors": (stage,)}), BASELINE).guardrails[0]

    assert errors(100).is_worse
    assert not errors(25).is_worse
    assert errors(5).is_shown_good
    assert not errors(25).is_shown_good


def latency(
    slowdown: float = 1.0,
    *,
    n: int = N,
    pi: float = PI,
    times: float = 1.0,
    law: LatencyBaseline | None = None,
    **rail: Any,
) -> GuardrailVerdict:
    """Of so many answers of either arm, the candidate's so many times as slow."""
    rules = plan(guardrails={"latency": rail}, **({"strategy": "blue_green"} if pi == 1.0 else {}))
    baseline = replace(BASELINE, latency=law or latency_baseline())
    arms = (0, n) if pi == 1.0 else (n, n)
    bins = latencies(rules, baseline, np.random.default_rng(3), 1, pi, arms, (1.0, slowdown), times)
    verdicts = judge(rules, Evidence(bins=bins), baseline).guardrails
    return next(verdict for verdict in verdicts if verdict.name == "latency")


@pytest.mark.parametrize(
    ("slowdown", "is_worse", "is_good"), [(1.3, True, True), (1.0, False, True), (1.7, True, False)]
)
def test_a_candidate_is_slower_or_shown_not_to_be_by_its_own_tolerance_and_margin(
    slowdown: float, is_worse: bool, is_good: bool
) -> None:
    verdict = latency(slowdown, floor="0ms")
    assert (verdict.is_worse, verdict.is_shown_good) == (is_worse, is_good)


def test_what_differs_by_less_than_the_floor_is_as_fast_however_many_times_as_slow() -> None:
    """Stable's median is 2 ms, its 99.9th percentile 13 ms."""
    assert latency(1.5, floor="0ms").is_worse
    assert not latency(1.5, floor="10ms").is_worse
    assert latency(1.5, floor="10ms", n=2000).is_shown_good
    assert latency(8.0, floor="10ms").is_worse


def test_who_is_as_much_slower_as_is_tolerated_is_not_blamed_when_all_are_slower_than_the_thresholds_know() -> None:
    for times in (0.5, 2.0, 4.0):
        assert not latency(1.1, times=times, floor="0ms").is_worse
        assert latency(1.6, times=times, floor="0ms").is_worse


def test_where_all_are_far_slower_than_the_thresholds_nobody_is_shown_good_and_at_new_ones_he_is() -> None:
    assert not latency(1.0, times=20.0, n=2000).is_shown_good
    law = latency_baseline()
    moved = replace(
        law,
        edges_us=tuple(20.0 * edge for edge in law.edges_us),
        thresholds_us=tuple(20 * x for x in law.thresholds_us),
    )
    assert latency(1.0, law=moved, n=2000).is_shown_good
    said = moved.strays_from(law, 0.95, 1000)
    assert said.startswith("50 % of stable's answers take up to 3")
    assert not law.strays_from(law, 0.95, 1000)
    assert not moved.strays_from(law, 0.95, 10**7)


def test_epochs_with_thresholds_of_their_own_are_one_comparison() -> None:
    rules, rng = plan(), np.random.default_rng(4)
    law = latency_baseline()
    stalled = replace(law, thresholds_us=tuple(20 * x for x in law.thresholds_us))
    baseline = replace(BASELINE, latency=replace(stalled), later=((2, law),))
    evidence = Evidence()
    for epoch in (1, 2, 3):
        drawn = replace(baseline, latency=law, later=((0, baseline.latency_at(epoch)),))  # type: ignore[arg-type]
        evidence = evidence + Evidence(bins=latencies(rules, drawn, rng, epoch, PI, (4000, 4000), (1.0, 2.0)))
    verdict = next(v for v in judge(rules, evidence, baseline).guardrails if v.name == "latency")
    assert verdict.is_worse
    assert verdict.rollback is not None
    assert verdict.rollback.n == 24_000


def test_alone_a_candidate_that_is_slower_than_stable_was_by_more_than_the_margin_is_worse() -> None:
    for slowdown, is_worse, is_good in ((2.5, True, False), (1.0, False, True)):
        verdict = latency(slowdown, n=5000, pi=1.0)
        assert (verdict.is_worse, verdict.is_shown_good) == (is_worse, is_good)


def test_a_threshold_beyond_which_nothing_lies_for_long_is_not_asked_to_show_a_candidate_good() -> None:
    counts = [0] * (len(EDGES_US) - 1)
    counts[8:12], counts[40:44] = [1200] * 4, [1300] * 4  # two kinds of requests; the median is where the second begins
    frozen = freeze_latency(EDGES_US, counts, (0.5, 0.9, 0.95))
    assert frozen is not None
    low = replace(frozen, thresholds_us=(2000, *frozen.thresholds_us[1:]))  # between the two kinds
    assert low.share_above(2000) < 1.2 * low.share_above(3000)
    assert latency(law=low).is_shown_good


def test_late_only_asks_what_comes_late() -> None:
    rules = plan(guardrails={"sales": METRIC})
    assert [verdict.name for verdict in judge(rules, Evidence(), BASELINE, late=True).guardrails] == ["sales"]
