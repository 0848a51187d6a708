"""What a rollout's decision reads, out of what all workers have reported: integers added up over them, dead ones too.

A worker counts by the generation of the route in force (see gateway.serving.evidence); a generation is an epoch of the
rollout. Nothing is configured there: thresholds are edges of the histograms that every worker has, and outputs are
binned here, by edges that were frozen before the start. What is missing is a `fault`, never a silent zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gateway.rollout.baseline import Baseline
from gateway.rollout.evidence import Evidence
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Facts

if TYPE_CHECKING:
    from gateway.store import Store, WorkerRecord

KIND = "evidence"
STABLE, CANDIDATE = "stable", "candidate"
"""Names of the arms in the route's default split. A split without a candidate counts nothing; one that has the candidate
alone, at 100 %, must still name it so: `versions: [{version: "2", weight: 100, arm: candidate}]`.
"""


class Stretch(NamedTuple):
    """Requests under one generation of the route: the rollout's epoch, and the probability of the candidate."""

    epoch: int
    pi: float
    """0 while there is but a shadow."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One rollout. `stages` by generation of the model's route: all that this rollout has published, also those that are
    over. Two generations may share an epoch when they have the same probability.
    """

    model: str
    stable: str
    candidate: str
    stages: Mapping[int, Stretch]
    plan: Plan
    baseline: Baseline
    started_s: float


@dataclass(frozen=True, slots=True)
class Collected:
    """Goes into a Snapshot as it is."""

    evidence: Evidence = field(default_factory=Evidence)
    facts: Facts = Facts()
    age_s: float | None = None
    """Of the oldest live worker's last report; None: somebody has never reported."""
    fault: str = ""
    lowered: Mapping[str, str] = field(default_factory=dict)
    """By incarnation, why it took weight from the candidate by itself."""
    in_flight: int | None = None


Further = Callable[["Store", Watched], Evidence]
"""Counts what no worker reports: what feedback says of the requests, by the same epochs."""


def collect(
    store: Store, live: Sequence[WorkerRecord], watched: Watched, now_s: float, further: Sequence[Further] = ()
) -> Collected:
    """StoreUnavailable. `now_s`: wall clock."""
    raise NotImplementedError


def baseline(store: Store, live: Sequence[WorkerRecord], model: str, stable: str, plan: Plan, now_s: float) -> Baseline:
    """What stable was up to now, for the whole rollout. StoreUnavailable."""
    raise NotImplementedError
