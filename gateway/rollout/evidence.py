"""All that was counted in a rollout, by guardrail. Integers that add up over workers, and over one worker's lives.

An epoch is a stretch with constant weights: its number is the `index` of the judge's stages, and every change of the
traffic begins the next. Only settled requests are here: how a worker's counts become settled is the collector's affair.
What is counted where, by the kind of the guardrail:

    errors, broken              labels    requests with the event, by arm
    latency                     bins      by the thresholds of the epoch, fastest first, the candidate's by what is
                                          tolerated at them; under `latency_limits` for each margin as well
    distribution                bins      by bin or class of the output
    metric                      bins      by level, see evidence.betting.Metric.level
    cost                        moments   see baseline.CostBaseline.metric
    disagreement, correctness   pairs     shadow pairs; a copy that failed or came too late differs and is not right
    fairness                    groups    requests with the event, by group and arm
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.evidence.counts import BinnedStage, Stage, merge
from gateway.evidence.mean import MomentStage
from gateway.evidence.paired import PairStage
from gateway.rollout.baseline import LatencyBaseline
from gateway.rollout.guardrail import Latency
from gateway.rollout.plan import Plan


@dataclass(frozen=True, slots=True)
class Evidence:
    split: tuple[Stage, ...] = ()  # only n: what was drawn, requests or (sticky) keys; the least evidence is of these
    labels: Mapping[str, tuple[Stage, ...]] = field(default_factory=dict)
    bins: Mapping[str, tuple[BinnedStage, ...]] = field(default_factory=dict)
    moments: Mapping[str, tuple[MomentStage, ...]] = field(default_factory=dict)
    pairs: Mapping[str, tuple[PairStage, ...]] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, tuple[Stage, ...]]] = field(default_factory=dict)

    def __add__(self, other: Evidence) -> Evidence:
        """What two workers counted; in any order."""
        groups = {
            name: _sum(self.groups.get(name, {}), other.groups.get(name, {}))
            for name in sorted({*self.groups, *other.groups})
        }
        return Evidence(
            merge(self.split + other.split),
            _sum(self.labels, other.labels),
            _sum(self.bins, other.bins),
            _sum(self.moments, other.moments),
            _sum(self.pairs, other.pairs),
            groups,
        )

    def drawn(self, epoch: int) -> tuple[int, int]:
        """Settled requests of stable and of the candidate in an epoch."""
        found = [stage for stage in self.split if stage.index == epoch]
        return sum(stage.n_stable for stage in found), sum(stage.n_candidate for stage in found)

    def compared(self, epoch: int) -> int:
        """Shadow pairs in an epoch, of the guardrail that has fewest."""
        each = [sum(stage.n for stage in stages if stage.index == epoch) for stages in self.pairs.values()]
        return min(each, default=0)


def margin_key(name: str, width: float) -> str:
    """Of a latency guardrail's bins at its margin, so many times as wide. No guardrail has a name with a slash."""
    return f"{name}/{width:g}"


def latency_limits(name: str, rail: Latency, plan: Plan, frozen: LatencyBaseline) -> dict[str, tuple[int, ...]]:
    """By the key in `bins`: above what the candidate's answers count, where stable's count above the thresholds."""
    found = {name: frozen.limits(rail.tolerated, rail.floor_us)}
    for width in plan.widths():
        found[margin_key(name, width)] = frozen.limits(1.0 + (rail.margin - 1.0) * width, rail.floor_us)
    return found


def _sum(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, Any]:
    return {name: merge((*left.get(name, ()), *right.get(name, ()))) for name in sorted({*left, *right})}
