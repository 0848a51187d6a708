"""A small world for rollouts: workers that take weights, requests that fall on arms, and a clock, all by hand.

It does what a controller does with a decision, stores what a controller stores, and can lose what a crash loses.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.paired import PairStage
from gateway.rollout.baseline import Baseline, LatencyBaseline, freeze_latency
from gateway.rollout.cursor import Cursor
from gateway.rollout.decide import begin, decide
from gateway.rollout.decision import Decision
from gateway.rollout.evidence import Evidence, latency_limits
from gateway.rollout.guardrail import Latency
from gateway.rollout.phase import Stage as Phase
from gateway.rollout.plan import Plan, parse
from gateway.rollout.snapshot import Facts, Now, Orders, Snapshot, Trial, Worker
from gateway.routing.route import SHARE_UNIT

START_S = 1_700_000_000.0
EDGES_US = tuple(100.0 * 2 ** (k / 4) for k in range(61))
QUICK = {
    "model": "fraud",
    "candidate": 2,
    "strategy": "canary",
    "steps": [{"weight": w, "min_time": "10s", "max_time": "10min"} for w in (5, 25, 50)],
    "bake": {"time": "10s", "max_time": "10min"},
}


def plan(**changes: Any) -> Plan:
    """A canary in three steps of ten seconds at least."""
    return parse({**QUICK, **changes})


def latency_baseline() -> LatencyBaseline:
    """Of ten thousand lognormal answers around 2 ms."""
    rng = np.random.default_rng(1)
    counts, _ = np.histogram(rng.lognormal(np.log(2000.0), 0.6, 10_000), EDGES_US)
    found = freeze_latency(EDGES_US, [int(n) for n in counts], (0.5, 0.9, 0.95, 0.99, 0.999))
    assert found is not None
    return found


def latencies(
    rules: Plan,
    baseline: Baseline,
    rng: np.random.Generator,
    epoch: int,
    pi: float,
    n: tuple[int, int],
    slowdown: tuple[float, float] = (1.0, 1.0),
    times: float = 1.0,
) -> dict[str, tuple[BinnedStage, ...]]:
    """What is counted of so many answers, of stable and of the candidate, each so many times as slow as its law in the
    baseline says; `times`: both are, for it is rush hour.
    """
    law, frozen = baseline.latency, baseline.latency_at(epoch)
    assert law is not None
    assert frozen is not None
    rail = rules.guardrails.get("latency")
    if not isinstance(rail, Latency):
        return {}
    keys = latency_limits("latency", rail, rules, frozen)
    cuts = sorted({*frozen.thresholds_us, *(limit for limits in keys.values() for limit in limits)})
    above = []
    for number, slower in zip(n, slowdown, strict=True):
        shares = np.array([1.0, *(law.share_above(cut / (slower * times)) for cut in cuts), 0.0])
        bins = rng.multinomial(number, (found := np.maximum(-np.diff(shares), 0.0)) / found.sum())
        above.append(dict(zip(cuts, bins[::-1].cumsum()[::-1][1:].tolist(), strict=True)))

    def binned(side: int, limits: tuple[int, ...]) -> tuple[int, ...]:
        beyond = [n[side], *(above[side][limit] for limit in limits), 0]
        return tuple(a - b for a, b in pairwise(beyond))

    usual = binned(0, frozen.thresholds_us)
    return {key: (BinnedStage(epoch, pi, usual, binned(1, limits)),) for key, limits in keys.items()}


@dataclass
class Version:
    """How one behaves."""

    failing: float = 0.0
    broken: float = 0.0
    slowdown: float = 1.0
    outputs: tuple[float, ...] = (0.25, 0.25, 0.25, 0.25)


class World:
    """`run` lets time pass; `decisions` has all that were noteworthy, with the documents they were taken from."""

    def __init__(
        self,
        plan: Plan,
        candidate: Version | None = None,
        stable: Version | None = None,
        *,
        seed: int = 0,
        requests_per_s: int = 1000,
        n_workers: int = 2,
        look_s: float = 1.0,
    ) -> None:
        self.plan, self.rng = plan, np.random.default_rng(seed)
        self.stable, self.candidate = stable or Version(), candidate or Version()
        self.requests_per_s, self.look_s = requests_per_s, look_s
        self.baseline = Baseline(n=10_000, requests_per_s=requests_per_s, latency=latency_baseline())
        self.wall_s = START_S
        self.passed_s: float | None = 0.0
        self.cursor: Cursor = begin(plan, self.wall_s)
        self.workers = [Worker(f"w{i}", 0, 0, True, True) for i in range(n_workers)]
        self.evidence, self.facts = Evidence(), Facts()
        self.orders, self.trial = Orders(), Trial(True)
        self.others: dict[str, Any] = {}  # further fields of the snapshot
        self.records: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.decisions: list[Decision] = []
        self.n_harmed = 0
        self.times = 1.0  # as slow as in the baseline, both versions

    # --- time and traffic

    def snapshot(self) -> Snapshot:
        fields: dict[str, Any] = {
            "evidence": self.evidence,
            "facts": self.facts,
            "baseline": self.baseline,
            "latency": self.latency_now(),
            "trial": self.trial,
            "orders": self.orders,
            "in_flight": 0,
            **self.others,
        }
        return Snapshot(self.cursor, Now(self.wall_s, self.passed_s), tuple(self.workers), **fields)

    def latency_now(self) -> LatencyBaseline | None:
        """Stable's in this epoch."""
        law = self.baseline.latency
        n = self.evidence.drawn(self.cursor.epoch)[0]
        if law is None or n < 200:
            return None
        law = replace(law, counts=tuple(round(k * n / sum(law.counts)) for k in law.counts))
        thresholds = tuple(round(self.times * threshold) for threshold in law.thresholds_us)
        return replace(law, edges_us=tuple(self.times * edge for edge in law.edges_us), thresholds_us=thresholds)

    def look(self, *, apply: bool = True, publish: bool = True) -> Decision:
        """One look; what it says is stored and done, unless the controller dies before either."""
        snapshot = self.snapshot()
        decision = decide(self.plan, snapshot)
        self.passed_s = 0.0
        if not apply:
            return decision
        if decision.changes(self.cursor):
            through = json.loads(json.dumps([snapshot.as_dict(), decision.as_dict()]))
            self.records.append((through[0], through[1]))
            self.decisions.append(decision)
        self.cursor = decision.cursor
        if decision.changes_traffic:
            self.baseline = decision.baseline_after(snapshot)
        if decision.changes_traffic and publish:
            self.publish()
        return decision

    def publish(self) -> None:
        """The weights in force reach every worker; again and again is the same."""
        self.workers = [replace(w, epoch=self.cursor.epoch, units=self.cursor.units) for w in self.workers]

    def pass_time(self, seconds: float) -> None:
        self.wall_s += seconds
        if self.passed_s is not None:
            self.passed_s += seconds

    def serve(self, n: int) -> None:
        """So many requests, drawn with the weight in force, all settled at once."""
        cursor, rng = self.cursor, self.rng
        pi = self.workers[0].units / SHARE_UNIT
        n_candidate = int(rng.binomial(n, pi))
        n_stable = n - n_candidate
        arms = ((n_stable, self.stable), (n_candidate, self.candidate))
        failed = [int(rng.binomial(m, version.failing)) for m, version in arms]
        broken = [int(rng.binomial(m, version.broken)) for m, version in arms]
        self.n_harmed += failed[1] + broken[1]
        outputs = [tuple(int(k) for k in rng.multinomial(m, version.outputs)) for m, version in arms]
        epoch = self.workers[0].epoch
        pairs = ()
        if cursor.shadow_units:
            m = n * cursor.shadow_units // SHARE_UNIT
            pairs = (PairStage(epoch, m, int(rng.binomial(m, 0.01))),)
        if epoch:
            self.evidence = self.evidence + Evidence(
                (Stage(epoch, pi, n_stable, n_candidate, 0, 0),),
                {
                    "errors": (Stage(epoch, pi, n_stable, n_candidate, failed[0], failed[1]),),
                    "broken": (Stage(epoch, pi, n_stable, n_candidate, broken[0], broken[1]),),
                },
                {
                    **self._latencies(epoch, pi, n_stable, n_candidate),
                    "outputs": (BinnedStage(epoch, pi, outputs[0], outputs[1]),),
                },
                {},
                {"disagreement": pairs} if pairs else {},
            )
        facts = self.facts
        self.facts = replace(
            facts,
            n_stable=facts.n_stable + n_stable,
            n_candidate=facts.n_candidate + n_candidate,
            failed_stable=facts.failed_stable + failed[0],
            failed_candidate=facts.failed_candidate + failed[1],
            broken_stable=facts.broken_stable + broken[0],
            broken_candidate=facts.broken_candidate + broken[1],
        )

    def _latencies(self, epoch: int, pi: float, n_stable: int, n_candidate: int) -> dict[str, tuple[BinnedStage, ...]]:
        return latencies(
            self.plan, self.baseline, self.rng, epoch, pi, (n_stable, n_candidate),
            (self.stable.slowdown, self.candidate.slowdown), self.times,
        )  # fmt: skip

    def run(self, seconds: float, until: Callable[[World], bool] | None = None) -> World:
        """Looks, requests and time, until the stage or the time is over."""
        end_s = self.wall_s + seconds
        while self.wall_s < end_s and not (until and until(self)):
            self.pass_time(self.look_s)
            self.serve(round(self.requests_per_s * self.look_s))
            self.look()
            if self.is_over:
                break
        return self

    @property
    def stage(self) -> Phase:
        return self.cursor.stage

    @property
    def is_over(self) -> bool:
        return self.stage in (Phase.PROMOTED, Phase.ROLLED_BACK, Phase.REFUSED, Phase.SUPERSEDED)

    def weights(self) -> list[int]:
        """Of the candidate, as they were published."""
        return [decision.new_units for decision in self.decisions if decision.new_units is not None]
