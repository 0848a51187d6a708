"""What a rollout's decision reads, out of what all workers have reported: integers added up over them, dead ones too.

A worker counts by the generation of the route in force; a generation is an epoch of the
rollout. Nothing is configured there: thresholds are edges of the histograms that every worker has, and outputs are
binned here, by edges that were frozen before the start. What is missing is a `fault`, never a silent zero.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import orjson

from gateway.control.evidencebaseline import baseline as baseline
from gateway.control.evidencebins import Integers, cost_moments, latency_bins, value_bins
from gateway.control.fleet import LEAVING
from gateway.evidence.counts import BinnedStage, Stage
from gateway.evidence.mean import MomentStage
from gateway.evidence.paired import PairStage
from gateway.monitoring.tile import latency_bounds_us
from gateway.native import scales
from gateway.native.pairs import SIZES
from gateway.rollout import guardrail as rails
from gateway.rollout.baseline import Baseline
from gateway.rollout.evidence import Evidence, latency_limits
from gateway.rollout.plan import Plan
from gateway.rollout.snapshot import Facts

if TYPE_CHECKING:
    from gateway.store import Report, Store, WorkerRecord

KIND = "evidence"
STABLE, CANDIDATE = "stable", "candidate"
"""Names of the arms. A rollout's route must write them out, also when one of them has everything:
`versions: [{version: "1", weight: 95, arm: stable}, {version: "2", weight: 5, arm: candidate}]`. A split that names no
arms is counted too, but its workers take no weight from anybody by themselves: it is an operator's own.
"""
MAX_FAULTS = 3
"""That are told one by one: they are much alike."""


class Stretch(NamedTuple):
    """Requests under one generation of the route: the rollout's epoch, and the probability of the candidate."""

    epoch: int
    pi: float
    """0 while there is but a shadow."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One rollout. `stages` by generation of the model's route: all that this rollout has published, also those that
    are over. Two generations may share an epoch when they have the same probability.
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
    facts: Facts = field(default_factory=Facts)
    age_s: float | None = None
    """Of the oldest live worker's last report; None: there is no worker, or one that never reported."""
    fault: str = ""
    lowered: Mapping[str, str] = field(default_factory=dict)
    """By incarnation, why it took weight from the candidate by itself."""
    in_flight: int | None = None
    stable_latency: Integers | None = None
    """Cells of stable's settled answers in the newest epoch."""


Further = Callable[["Store", Watched], Evidence]
"""Counts what no worker reports: what feedback says of the requests, by the same epochs."""


@dataclass(frozen=True, slots=True)
class Told:
    """One report: of a worker, about one generation of the route."""

    incarnation: str
    generation: int
    at_s: float
    head: Mapping[str, Any]
    counts: Integers | None
    """[side, counter], see gateway.native.scales; None: there was but a shadow."""

    @classmethod
    def of(cls, report: Report) -> Told:
        """ValueError."""
        line, _, counts = report.body.partition(b"\n")
        head = orjson.loads(line)
        if not isinstance(head, dict) or head.get("generation") != int(report.key):
            raise ValueError(f"report: got {line[:80]!r}, expected one of generation {report.key}")
        has_counts = "versions" in head
        return cls(
            report.incarnation,
            int(report.key),
            report.at,
            head,
            scales.read_counts(counts) if has_counts else None,
        )

    def check(self, watched: Watched) -> None:
        """ValueError: it counted something else than this rollout had published."""
        if self.counts is None:
            return
        versions, shares, pi = self.head["versions"], self.head["shares"], watched.stages[self.generation].pi
        expected = {(watched.stable, watched.candidate), ("", watched.candidate)}
        if tuple(versions) not in expected:
            raise ValueError(f"versions: got {versions}, expected {watched.stable} and {watched.candidate}")
        if abs(shares[1] - pi * sum(shares)) > 1e-6 * sum(shares):
            raise ValueError(f"shares: got {shares}, expected {pi:g} for the candidate")

    def said_again(self, at_s: float) -> Told:
        return self if at_s == self.at_s else replace(self, at_s=at_s)

    @property
    def open(self) -> tuple[int, int]:
        stable, candidate = self.head.get("open", (0, 0))
        return stable, candidate

    @property
    def lowered(self) -> str:
        return str(self.head.get("lowered", ""))

    def facts(self, side: str) -> Mapping[str, int]:
        found: Mapping[str, int] = self.head.get("facts", {}).get(side, {})
        return found

    def shadow(self, version: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.head.get("shadows", {}).get(version, {})
        return found


def collect(
    store: Store, live: Sequence[WorkerRecord], watched: Watched, now_s: float, further: Sequence[Further] = ()
) -> Collected:
    """StoreUnavailable. `now_s`: wall clock."""
    reports: dict[int, list[Report]] = {}
    for report in store.reports(KIND, watched.model):
        if report.key.isdigit() and int(report.key) in watched.stages:
            reports.setdefault(int(report.key), []).append(report)
    told: dict[int, list[Told]] = {}
    faults: list[str] = []
    found = Evidence()
    newest = max((stretch.epoch for stretch in watched.stages.values()), default=0)
    latency: Integers = np.zeros(len(latency_bounds_us()), np.int64)
    for generation, each in sorted(reports.items()):
        read = _read(watched, generation, each)
        if watched.stages[generation].epoch == newest:
            latency = latency + read.stable_latency
        at_s = {report.incarnation: report.at for report in each}
        told[generation] = [one.said_again(at_s[one.incarnation]) for one in read.told]
        faults += read.faults
        try:
            found = found + read.evidence
        except ValueError as error:
            faults.append(f"generation {generation}: {error}")
    for more in further:
        found = found + more(store, watched)
    by_worker: dict[str, list[Told]] = {}
    for one in sorted((one for ones in told.values() for one in ones), key=lambda one: one.generation):
        by_worker.setdefault(one.incarnation, []).append(one)
    ages = [_age(store, record, by_worker.get(record.incarnation, []), watched, now_s) for record in live]
    known = [age for age in ages if age is not None]
    here = {record.incarnation: record for record in live}
    return Collected(
        found,
        _facts(store, here, watched, by_worker),
        max(known) if known and len(known) == len(ages) else None,
        "; ".join(faults[:MAX_FAULTS]),
        {
            name: ones[-1].lowered
            for name, ones in by_worker.items()
            if name in here and ones[-1].lowered and here[name].generations.get(watched.model) == ones[-1].generation
        },
        sum(one.open[1] for name, ones in by_worker.items() if name in here for one in ones)
        if all(record.incarnation in by_worker for record in live)
        else None,
        latency,
    )


# --- from one generation's counts to what each guardrail reads


@dataclass(frozen=True, slots=True)
class _Read:
    """What was made of one generation's reports; kept for the next look, since most of them will be the same."""

    watched: Watched
    bodies: tuple[bytes, ...]
    told: tuple[Told, ...]
    faults: tuple[str, ...]
    evidence: Evidence
    stable_latency: Integers

    def is_of(self, watched: Watched, generation: int, bodies: tuple[bytes, ...]) -> bool:
        before = self.watched
        return (
            self.bodies == bodies
            and before.plan is watched.plan
            and before.stages[generation] == watched.stages[generation]
            and (before.stable, before.candidate, before.baseline)
            == (watched.stable, watched.candidate, watched.baseline)
        )


_known: OrderedDict[tuple[str, int], _Read] = OrderedDict()
MAX_KNOWN = 2000


def _read(watched: Watched, generation: int, reports: Sequence[Report]) -> _Read:
    key, bodies = (watched.model, generation), tuple(report.body for report in reports)
    known = _known.get(key)
    if known is None or not known.is_of(watched, generation, bodies):
        known = _read_anew(watched, generation, reports, bodies)
        _known[key] = known
        while len(_known) > MAX_KNOWN:
            _known.popitem(last=False)
    return known


def _read_anew(watched: Watched, generation: int, reports: Sequence[Report], bodies: tuple[bytes, ...]) -> _Read:
    told, faults, evidence = [], [], Evidence()
    for report in reports:
        try:
            one = Told.of(report)
            one.check(watched)
            told.append(one)
        except ValueError as error:
            faults.append(f"worker {report.incarnation}, generation {report.key}: {error}")
    try:
        evidence = _evidence(watched, generation, told)
    except ValueError as error:  # CountError too: counts that cannot be
        faults.append(f"generation {generation}: {error}")
    slim = tuple(replace(one, counts=None) for one in told)
    cells = [one.counts[0][scales.LATENCY] for one in told if one.counts is not None]
    latency: Integers = np.sum(cells, axis=0) if cells else np.zeros(len(latency_bounds_us()), np.int64)
    return _Read(watched, bodies, slim, tuple(faults), evidence, latency)


def _evidence(watched: Watched, generation: int, told: Sequence[Told]) -> Evidence:
    """ValueError."""
    epoch, pi = watched.stages[generation]
    pairs = _pairs(watched, epoch, [one.shadow(watched.candidate) for one in told])
    counted = [one for one in told if one.counts is not None]
    if not counted or pi == 0.0:
        return Evidence(pairs=pairs)
    # A key may come to several workers: there it is drawn once and counted once in each.
    times = len(counted) if counted[0].head["is_sticky"] else 1
    fine: Integers = np.add.reduce([one.counts for one in counted if one.counts is not None])
    stable, candidate = fine if times == 1 else fine // times
    labels, bins, moments = {}, {}, {}
    for name, rail in watched.plan.guardrails.items():
        match rail:
            case rails.Errors() | rails.Broken():
                event = scales.FAILED if isinstance(rail, rails.Errors) else scales.BROKEN
                n, k = (int(stable[scales.JUDGED]), int(candidate[scales.JUDGED])), (stable[event], candidate[event])
                labels[name] = (Stage(epoch, pi, *n, int(k[0]), int(k[1])),)
            case rails.Latency() if frozen := watched.baseline.latency_at(epoch):
                usual = latency_bins(stable[scales.LATENCY], frozen.thresholds_us)
                for key, limits in latency_limits(name, rail, watched.plan, frozen).items():
                    bins[key] = (BinnedStage(epoch, pi, usual, latency_bins(candidate[scales.LATENCY], limits)),)
            case rails.Distribution():
                if found := _values(watched, rail, counted, times):
                    bins[name] = (BinnedStage(epoch, pi, *found),)
            case rails.Cost() if watched.baseline.cost:
                metric = watched.baseline.cost.metric()
                each = (cost_moments(side[scales.COST], metric) for side in fine)
                moments[name] = (MomentStage(epoch, *each),)
    split = Stage(epoch, pi, int(stable[scales.DRAWN]), int(candidate[scales.DRAWN]), 0, 0)
    return Evidence((split,), labels, bins, moments, pairs)


def _values(
    watched: Watched, rail: rails.Distribution, counted: Sequence[Told], times: int
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The bins of both arms. ValueError: an arm has answers, and no such value in them."""
    frozen = watched.baseline.outputs
    if frozen is None:
        return None
    found = []
    for side, arm in enumerate((STABLE, CANDIDATE)):
        total = np.zeros(0, np.int64)
        for one in counted:
            assert one.counts is not None
            columns = one.head["columns"][side]
            if not columns:
                continue  # it has not answered yet
            if frozen.column not in columns:
                raise ValueError(f"{arm}'s answers have no {frozen.column}, expected it beside {', '.join(columns)}")
            cells = one.counts[side][scales.values(columns.index(frozen.column))]
            total = total + cells if total.size else cells
        empty = total if total.size else np.zeros(scales.VALUE_CELLS, np.int64)
        found.append(value_bins(empty // times, frozen))
    return found[0], found[1]


def _pairs(watched: Watched, epoch: int, shadows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[PairStage, ...]]:
    shadows = [shadow for shadow in shadows if shadow]
    if not shadows:
        return {}
    found: dict[str, tuple[PairStage, ...]] = {}
    for name, rail in watched.plan.guardrails.items():
        if isinstance(rail, (rails.Disagreement, rails.Correctness)):
            limit = rail.difference if isinstance(rail, rails.Disagreement) else rails.Disagreement().difference
            n = differ = 0
            for shadow in shadows:
                n += shadow["answered"] + shadow["failed"] + shadow["late"]
                differ += shadow["other"] + shadow["failed"] + shadow["late"] + _beyond(shadow["relative"], limit)
            found[name] = (PairStage(epoch, n, differ),)
    return found


def _beyond(relative: Sequence[int], limit: float) -> int:
    """Pairs whose largest relative difference is above the limit, rounded to the next power of ten."""
    return sum(relative[i + 1] for i in range(len(SIZES)) if SIZES[i] > limit * (1 + 1e-9)) + relative[-1]


# --- what may not wait, and who says it


def _facts(
    store: Store, here: Mapping[str, WorkerRecord], watched: Watched, told: Mapping[str, Sequence[Told]]
) -> Facts:
    every = [one for ones in told.values() for one in ones]

    def total(side: str, what: str) -> int:
        return sum(one.facts(side).get(what, 0) for one in every)

    def most(side: str, what: str, *, now: bool) -> int:
        return max((one.facts(side).get(what, 0) for one in every if not now or one.incarnation in here), default=0)

    return Facts(
        n_stable=total(STABLE, "n"),
        n_candidate=total(CANDIDATE, "n"),
        failed_stable=total(STABLE, "failed"),
        failed_candidate=total(CANDIDATE, "failed"),
        run_stable=most(STABLE, "run", now=True),
        run_candidate=most(CANDIDATE, "run", now=True),
        broken_stable=total(STABLE, "broken"),
        broken_candidate=total(CANDIDATE, "broken"),
        broken_pairs=sum(one.shadow(watched.candidate).get("broken", 0) for one in every),
        constant_stable=most(STABLE, "same", now=False),
        constant_candidate=most(CANDIDATE, "same", now=False),
        crashes=_crashes(store, here, watched, told),
    )


def _crashes(
    store: Store, here: Mapping[str, WorkerRecord], watched: Watched, told: Mapping[str, Sequence[Told]]
) -> int:
    """Workers that had given the candidate requests, and are gone without a word."""
    gone = [
        name
        for name, ones in told.items()
        if name not in here
        and any(one.facts(CANDIDATE).get("n") or one.shadow(watched.candidate).get("answered") for one in ones)
    ]
    if not gone:
        return 0
    records = {record.incarnation: record for record in store.workers()}
    return sum(name in records and records[name].faults.get("") not in LEAVING for name in gone)


def _age(store: Store, record: WorkerRecord, told: Sequence[Told], watched: Watched, now_s: float) -> float | None:
    """Since a live worker's last report; None: it has requests to tell of, and never did."""
    if told:
        return max(0.0, now_s - max(one.at_s for one in told))
    generation = record.generations.get(watched.model)
    if generation not in watched.stages:
        return 0.0  # it has not heard of this rollout: that is an acknowledgement which is missing, not evidence
    route = store.routes().get(watched.model)
    return max(0.0, now_s - route.at) if route and route.generation == generation else None
