"""Shadow pairs with a label: what was predicted by either version for one request, and what was true.

Workers tell what a shadow predicted for a sample of the answers (reports of kind `link`); the label comes with a report
of the answer, that has the primary's own prediction. Whichever is first waits for the other, within bounds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from gateway.evidence.counts import merge
from gateway.evidence.paired import PairStage

if TYPE_CHECKING:
    from gateway.store import Store
    from gateway.store.feedback import FactSeen

KIND = "link"
MAX_LINKS = 500_000
"""Predictions that wait for a label: 100 MB."""
MAX_LABELS = 100_000
AGAIN_S = 60.0
"""Reports this much older than the newest are looked for again: workers tell them late, by clocks of their own."""


class LabelledPairs:
    """Of one rollout. Each label counts once, with the first that is told of its pair."""

    def __init__(self, model: str, candidate: str, started_s: float) -> None:
        self._model, self._candidate, self._started_s = model, candidate, started_s
        self.forget()

    def forget(self) -> None:
        self._links: dict[bytes, str | None] = {}
        self._labels: dict[bytes, FactSeen] = {}
        self._counts: dict[int, list[int]] = {}
        """By generation: labelled, only stable right, only the candidate right."""
        self._seen: dict[str, float] = {}
        self._newest_s = self._started_s

    def label(self, fact: FactSeen) -> None:
        if fact.predicted is None or fact.label is None:
            return
        if fact.id in self._links:
            self._count(fact, self._links.pop(fact.id))
        else:
            self._labels[fact.id] = fact
            if len(self._labels) > MAX_LABELS:
                del self._labels[next(iter(self._labels))]

    def read(self, store: Store) -> None:
        """Links that were told since the last time. StoreUnavailable."""
        for report in store.reports(KIND, self._model, self._candidate, since=self._newest_s - AGAIN_S):
            if report.key in self._seen:
                continue
            self._seen[report.key] = report.at
            self._newest_s = max(self._newest_s, report.at)
            for id, predicted in json.loads(report.body).items():
                self._link(bytes.fromhex(id), predicted)
        self._seen = {key: at for key, at in self._seen.items() if at >= self._newest_s - AGAIN_S}
        while len(self._links) > MAX_LINKS:
            del self._links[next(iter(self._links))]

    def _link(self, id: bytes, predicted: str | None) -> None:
        if (fact := self._labels.pop(id, None)) is not None:
            self._count(fact, predicted)
        else:
            self._links[id] = predicted

    def _count(self, fact: FactSeen, predicted: str | None) -> None:
        counts = self._counts.setdefault(fact.stage, [0, 0, 0])
        is_stable_right, is_candidate_right = fact.predicted == fact.label, predicted == fact.label
        counts[0] += 1
        counts[1] += is_stable_right and not is_candidate_right
        counts[2] += is_candidate_right and not is_stable_right

    def stages(self, stages: Mapping[int, tuple[int, float]]) -> tuple[PairStage, ...]:
        found = []
        for generation, (epoch, _) in stages.items():
            if counts := self._counts.get(generation):
                found.append(PairStage(epoch, 0, 0, *counts))
        return merge(found)
