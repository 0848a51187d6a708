"""Each kind of guardrail asks the test that is meant for it, with its own tolerance, margin and share of the risk."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.mean import Moments, MomentStage
from gateway.evidence.paired import PairStage
from gateway.evidence.verdict import Outcome
from gateway.rollout.baseline import Baseline, CostBaseline, freeze_latency
from gateway.rollout.evidence import Evidence
from gateway.rollout.judge import GuardrailVerdict, judge
from tests.support.rollouts import EDGES_US, Version, World, latency_baseline, plan

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


def test_alone_a_candidate_that_is_slower_than_stable_was_by_more_than_the_margin_is_worse() -> None:
    for slowdown, is_worse, is_good in ((2.5, True, False), (1.0, False, True)):
        shares = (1.0, *latency_baseline().shares(slowdown), 0.0)
        bins = tuple(round(5000 * (a - b)) for a, b in pairwise(shares))
        evidence = Evidence(bins={"latency": (BinnedStage(1, 1.0, (0,) * len(bins), bins),)})
        verdicts = judge(plan(strategy="blue_green"), evidence, BASELINE).guardrails
        verdict = next(v for v in verdicts if v.name == "latency")
        assert (verdict.is_worse, verdict.is_shown_good) == (is_worse, is_good)


def test_a_threshold_that_a_slower_candidate_would_hardly_cross_more_often_is_not_asked_to_show_it_good() -> None:
    counts = [0] * (len(EDGES_US) - 1)
    counts[8:12], counts[40:44] = [1200] * 4, [1300] * 4  # two kinds of requests; the median is where the second begins
    frozen = freeze_latency(EDGES_US, counts, (0.5, 0.9, 0.95))
    assert frozen is not None
    assert frozen.risks(1.5)[0] < 1.2
    shares = (1.0, *frozen.shares(1.0), 0.0)
    bins = tuple(round(N * (a - b)) for a, b in pairwise(shares))
    evidence = Evidence(bins={"latency": (BinnedStage(1, PI, bins, bins),)})
    verdicts = judge(plan(), evidence, Baseline(n=10_000, latency=frozen)).guardrails
    assert next(verdict for verdict in verdicts if verdict.name == "latency").is_shown_good


def test_late_only_asks_what_comes_late() -> None:
    rules = plan(guardrails={"sales": METRIC})
    assert [verdict.name for verdict in judge(rules, Evidence(), BASELINE, late=True).guardrails] == ["sales"]
