"""What callers have reported, as a decision about a rollout reads it: integers by epoch and arm, one value a request.

Reports are read from the store in the order in which they were written, and each once: what was counted is remembered
between two looks. Only requests that were drawn for `stable` or `candidate` count, on the arm they were drawn for, also
when a fallback answered; who named a version was not drawn. Of a request with several rows the first counts; with a
sticky key, the first report of a key: what is drawn are keys then. What came in for another generation of the route
than those of `stages` waits until that generation is among them.

    metric       bins    by level, of the value of the guardrail's name; LEVELS + 1 bins
    fairness     groups  requests with the event, by group and arm. The event `class X` is that X was predicted; any
                         other is a reported value of that name, which is not 0
    correctness  pairs   shadow pairs with a label: only those three counts; `n` and `n_differ` are 0 here and are the
                         comparer's to add, for this guardrail too (see Evidence.compared)
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from gateway.control.labelledpairs import LabelledPairs
from gateway.evidence.betting import Metric as Levels
from gateway.evidence.counts import BinnedStage, Stage, merge
from gateway.feedback.report import GROUPS, LABEL, VALUE
from gateway.rollout.evidence import Evidence
from gateway.rollout.guardrail import Correctness, Fairness, Metric
from gateway.rollout.plan import Plan

if TYPE_CHECKING:
    from gateway.store import Store
    from gateway.store.feedback import FactSeen

LEVELS = 100
"""K of evidence.betting: a metric is counted at one of K + 1 levels, dithered by the token's random id, so that the
mean of the levels is the mean of the values.
"""
MAX_READ = 100_000
"""Facts at one look, half a second's work. What is counted is then what came first, and the rest has its turn later."""
PAGE = 20_000
MAX_READERS = 200
"""Rollouts whose counts are remembered; one that was forgotten is counted anew."""
STABLE, CANDIDATE = "stable", "candidate"
_READ = (Metric, Fairness, Correctness)
_CLASS = "class "


class Watched(Protocol):
    """gateway.control.evidence.Watched has these."""

    @property
    def model(self) -> str: ...

    @property
    def stages(self) -> Mapping[int, tuple[int, float]]:
        """Generation of the route -> (epoch, probability of the candidate)."""

    @property
    def plan(self) -> Plan: ...

    @property
    def candidate(self) -> str: ...

    @property
    def started_s(self) -> float: ...


def evidence(store: Store, watched: Watched) -> Evidence:
    """Of the plan's guardrails that read feedback; add it to the others' with `+`. Empty, without a look at the store,
    when the plan has none. StoreUnavailable.
    """
    if not watched.stages or not any(isinstance(rail, _READ) for rail in watched.plan.guardrails.values()):
        return Evidence()
    key = (store.name, watched.model, watched.plan.digest(), min(watched.stages))
    with _lock:
        reader = _readers.pop(key, None) or Reader(watched)
        _readers[key] = reader
        while len(_readers) > MAX_READERS:
            _readers.popitem(last=False)
        reader.read(store, watched.stages)
        return reader.evidence(watched.stages)


class Reader:
    """Counts of one rollout. `read` takes in what is new."""

    def __init__(self, watched: Watched) -> None:
        self._model = watched.model
        rails = watched.plan.guardrails.items()
        self._metrics = {name: Levels(r.centre, r.low, r.high) for name, r in rails if isinstance(r, Metric)}
        self._fairness = {name: rail for name, rail in rails if isinstance(rail, Fairness)}
        self._correctness = [name for name, rail in rails if isinstance(rail, Correctness)]
        self._pairs = LabelledPairs(watched.model, watched.candidate, watched.started_s)
        self._forget()

    def _forget(self) -> None:
        self._after: dict[int, int] = {}
        """By generation, up to which seq it is counted."""
        self._levels: dict[tuple[str, int, str], list[int]] = {}
        self._groups: dict[tuple[str, str, int, str], list[int]] = {}
        self._units: set[tuple[str, str, bytes]] = set()
        self._pairs.forget()

    def read(self, store: Store, stages: Mapping[int, object]) -> None:
        last = store.last_feedback()
        if self._after and last < max(self._after.values()):  # a backup was put back
            self._forget()
        by_after: dict[int, list[int]] = {}
        for generation in stages:
            if (after := self._after.get(generation, 0)) < last:
                by_after.setdefault(after, []).append(generation)
        left = MAX_READ
        for after, generations in sorted(by_after.items()):
            while left > 0:
                page = store.feedback(self._model, generations, after, min(PAGE, left))
                for _, fact in page:
                    self._count(fact)
                left -= len(page)
                is_all = len(page) < PAGE and left > 0
                after = max(last, page[-1][0] if page else 0) if is_all else page[-1][0]
                self._after.update(dict.fromkeys(generations, after))
                if is_all:
                    break
        if self._correctness:
            self._pairs.read(store)

    def _count(self, fact: FactSeen) -> None:
        if fact.arm not in (STABLE, CANDIDATE):
            return
        if fact.kind == LABEL and self._correctness and fact.arm == STABLE:
            self._pairs.label(fact)
        if fact.kind == VALUE and fact.value is not None:
            self._count_value(fact, fact.value)
        if fact.groups:
            self._count_groups(fact)

    def _count_value(self, fact: FactSeen, value: float) -> None:
        metric = self._metrics.get(fact.name)
        if metric is None or not self._is_new("", fact.name, fact.unit):
            return
        dither = int.from_bytes(fact.id[:8], "little") / 2.0**64
        levels = self._levels.setdefault((fact.name, fact.stage, fact.arm), [0] * (LEVELS + 1))
        levels[metric.level(value, LEVELS, dither)] += 1

    def _count_groups(self, fact: FactSeen) -> None:
        for name, rail in self._fairness.items():
            if rail.event.startswith(_CLASS):
                if fact.kind != GROUPS or fact.predicted is None:
                    continue
                has_event = fact.predicted == rail.event.removeprefix(_CLASS)
            elif fact.kind == VALUE and fact.name == rail.event:
                has_event = bool(fact.value)
            else:
                continue
            for group in json.loads(fact.groups):
                if group in rail.groups and self._is_new(name, group, fact.unit):
                    cell = self._groups.setdefault((name, group, fact.stage, fact.arm), [0, 0])
                    cell[0] += 1
                    cell[1] += has_event

    def _is_new(self, guardrail: str, what: str, unit: bytes | None) -> bool:
        """Whether this sticky key has not been counted yet; without one, each request is a unit."""
        if unit is None:
            return True
        if (key := (guardrail, what, bytes(unit))) in self._units:
            return False
        self._units.add(key)
        return True

    def evidence(self, stages: Mapping[int, tuple[int, float]]) -> Evidence:
        bins: dict[str, tuple[BinnedStage, ...]] = {}
        for name in self._metrics:
            found = []
            for generation, (epoch, pi) in stages.items():
                none = [0] * (LEVELS + 1)
                stable = self._levels.get((name, generation, STABLE), none) if pi < 1.0 else none
                candidate = self._levels.get((name, generation, CANDIDATE), none) if pi > 0.0 else none
                if any(stable) or any(candidate):
                    found.append(BinnedStage(epoch, pi, tuple(stable), tuple(candidate)))
            bins[name] = merge(found)
        groups: dict[str, dict[str, tuple[Stage, ...]]] = {}
        for name, rail in self._fairness.items():
            groups[name] = {}
            for group in rail.groups:
                cells = []
                for generation, (epoch, pi) in stages.items():
                    n_s, k_s = self._groups.get((name, group, generation, STABLE), (0, 0)) if pi < 1.0 else (0, 0)
                    n_c, k_c = self._groups.get((name, group, generation, CANDIDATE), (0, 0)) if pi > 0.0 else (0, 0)
                    if n_s or n_c:
                        cells.append(Stage(epoch, pi, n_s, n_c, k_s, k_c))
                groups[name][group] = merge(cells)
        pairs = dict.fromkeys(self._correctness, self._pairs.stages(stages))
        return Evidence(bins=bins, pairs=pairs, groups=groups)


_lock = threading.Lock()
_readers: OrderedDict[tuple[str, str, str, int], Reader] = OrderedDict()
